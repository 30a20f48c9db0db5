from __future__ import annotations

import hashlib
import http.server
import io
import pathlib
import socket
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest
from idx_writer import write_idx_dir

from lenet_tf.data import raw_files
from lenet_tf.errors import DataError

TINY = {name: name.encode() for name in raw_files.NPM_FILES}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def answering_url() -> Iterator[str]:
    """A server that answers /404 with status 404, and so on."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("emnist", [None, "letters"])
def test_finds_files_under_every_usual_name(
    tmp_path: pathlib.Path, gz: bool, dotted: bool, emnist: str | None
) -> None:
    write_idx_dir(tmp_path, gz=gz)
    for path in list(tmp_path.iterdir()):
        name = path.name.replace("-idx", ".idx") if dotted else path.name
        if emnist:
            name = f"emnist-{emnist}-{name.replace('t10k', 'test')}"
        path.rename(tmp_path / name)
    files = raw_files.find_idx(tmp_path, emnist)
    found = [path for pair in files.values() for path in pair]
    assert sorted(found) == sorted(tmp_path.iterdir())
    assert "train" in files["train"][0].name
    assert "labels" in files["test"][1].name


def test_names_the_files_that_are_missing(tmp_path: pathlib.Path) -> None:
    write_idx_dir(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="it has no t10k-labels-idx1-ubyte"):
        raw_files.find_idx(tmp_path)
    with pytest.raises(DataError, match="must be a folder"):
        raw_files.find_idx(tmp_path / "train-images-idx3-ubyte")


def test_a_host_that_answers_can_be_reached(answering_url: str) -> None:
    assert raw_files.host_trouble(f"{answering_url}/200") is None
    assert raw_files.host_trouble(f"{answering_url}/404") is None
    assert raw_files.host_trouble(f"{answering_url}/503") == "answered HTTP 503"


def test_silent_and_absent_hosts_cannot(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "CHECK_SECONDS", 0.2)
    assert "Timeout" in (
        raw_files.host_trouble(f"http://127.0.0.1:{silent_port}/") or ""
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    assert "refused" in (raw_files.host_trouble(f"http://127.0.0.1:{closed}/") or "")


def test_the_environments_proxy_is_asked_unless_excepted(
    answering_url: str, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "CHECK_SECONDS", 0.2)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{silent_port}")
    assert raw_files.host_trouble(f"{answering_url}/200") is not None
    assert raw_files.host_trouble("https://host.invalid/") is not None
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert raw_files.host_trouble(f"{answering_url}/200") is None


def test_a_check_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    check = raw_files.start(lambda: str(release.wait()))
    assert "no answer" in (raw_files.settle(check, time.monotonic() + 0.1) or "")
    release.set()


def fake_npm(
    folder: pathlib.Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")


def test_npm_failures_are_told_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert raw_files.npm_trouble() == "npm is not installed"
    script = (
        "echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1"
    )
    fake_npm(tmp_path, script, monkeypatch)
    assert raw_files.npm_trouble() == "code E404; 404 Not Found"
    with pytest.raises(DataError, match="E404"):
        raw_files.fetch_npm(tmp_path)


def test_npm_that_hangs_is_ended(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "CHECK_SECONDS", 0.2)
    fake_npm(tmp_path, "exec sleep 600", monkeypatch)
    assert raw_files.npm_trouble() == "no answer in 0.2 s"


def write_tarball(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tiny_package(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Makes the known files tiny; returns the members of a good tarball."""
    known = {k: (len(v), hashlib.sha256(v).hexdigest()) for k, v in TINY.items()}
    monkeypatch.setattr(raw_files, "NPM_FILES", known)
    return {f"package/data/{name}": content for name, content in TINY.items()}


def test_the_package_is_fetched_and_unpacked(
    tmp_path: pathlib.Path,
    tiny_package: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tarball(tmp_path / "served", tiny_package)
    fake_npm(tmp_path, f"cp {tmp_path / 'served'} package.tgz", monkeypatch)
    target = tmp_path / "target"
    target.mkdir()
    raw_files.fetch_npm(target)
    assert {n: (target / n).read_bytes() for n in TINY} == TINY


def test_only_the_known_files_leave_the_tarball(
    tmp_path: pathlib.Path, tiny_package: dict[str, bytes]
) -> None:
    evil = {"../evil": b"x", str(tmp_path / "evil"): b"x", "package/evil": b"x"}
    write_tarball(tmp_path / "a.tgz", evil | tiny_package)
    target = tmp_path / "target"
    target.mkdir()
    raw_files.unpack(tmp_path / "a.tgz", target)
    assert {path.name for path in target.iterdir()} == set(TINY)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "longer", "changed", "link"])
def test_a_bad_tarball_is_refused(
    tmp_path: pathlib.Path, tiny_package: dict[str, bytes], damage: str
) -> None:
    name = "package/data/t10k-labels-idx1-ubyte"
    content = tiny_package[name]
    if damage in ("missing", "link"):
        del tiny_package[name]
    elif damage == "longer":
        tiny_package[name] = content + b"x"
    elif damage == "changed":
        tiny_package[name] = content[:-1] + b"x"
    path = tmp_path / "a.tgz"
    write_tarball(path, tiny_package)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "link":
        with tarfile.open(path, "w:gz") as tar:
            for member, data in tiny_package.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(info)
    with pytest.raises(DataError, match=r"a\.tgz"):
        raw_files.unpack(path, tmp_path)
