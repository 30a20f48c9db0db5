from __future__ import annotations

import http.server
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from idx_writer import write_idx_dir

from lenet_tf.data import raw_files
from lenet_tf.errors import DataError


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
