"""What is on the disk when the power fails: whole files, and none too few."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from small_run import Run, best, latest

from lenet_tf.checkpoint.restore import find_checkpoint
from lenet_tf.files import read_json, write_json


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is flushed, renamed and removed from now on, in order; all of it happens."""
    log: list[tuple[str, str]] = []

    def record(name: str, path_of: Callable[..., str]) -> None:
        original = getattr(os, name)

        def recorded(*args: object, **options: object) -> object:
            log.append((name, os.path.basename(path_of(*args))))
            return original(*args, **options)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", lambda fd: os.readlink(f"/proc/self/fd/{fd}"))
    record("replace", lambda _, target: os.fspath(target))
    record("unlink", lambda path: os.fspath(path))
    return log


needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs /proc"
)


@needs_proc
def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_return(
    tmp_path: pathlib.Path, calls: list[tuple[str, str]]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_json(folder / "x.json", {"a": 1})
    assert calls == [
        ("fsync", f".x.json.{os.getpid()}.tmp"),
        ("replace", "x.json"),
        ("fsync", "folder"),
    ]


@needs_proc
def test_a_checkpoint_is_on_the_disk_before_an_older_one_is_deleted(
    tmp_path: pathlib.Path, calls: list[tuple[str, str]]
) -> None:
    run = Run()
    newest, top = latest(run, tmp_path, keep=1), best(run, tmp_path)
    newest.save(1)
    top.offer(1, {"score": 1})
    for folder, act, state in (
        ("checkpoints", lambda: newest.save(2), "checkpoint"),
        ("best", lambda: top.offer(2, {"score": 2}), "best.json"),
    ):
        calls.clear()
        act()
        assert calls == [
            ("fsync", "step-2.data-00000-of-00001"),
            ("fsync", "step-2.index"),
            ("fsync", folder),
            ("fsync", f".{state}.{os.getpid()}.tmp"),
            ("replace", state),
            ("fsync", folder),
            ("unlink", "step-1.index"),
            ("unlink", "step-1.data-00000-of-00001"),
        ]


def run_quietly(*command: object) -> bool:
    """Runs a system's program, and tells whether it succeeded."""
    try:
        return not subprocess.run(
            list(map(str, command)), capture_output=True
        ).returncode
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """An ext4 file system of its own: where it is mounted, and the file it lies in."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if not (
        run_quietly("mkfs.ext4", "-q", image)
        and run_quietly("mount", "-o", "loop", image, mounted)
    ):
        pytest.skip("needs the right to mount an ext4 file system")
    yield mounted, image
    run_quietly("umount", mounted)


def test_a_power_loss_after_a_save_leaves_it_whole(
    disk: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    mounted, image = disk
    workdir, run = mounted / "runs" / "mine", Run()
    newest, top = latest(run, workdir, keep=1), best(run, workdir)
    write_json_at = workdir / "config.json"
    for step in (1, 2, 3):
        run.go_to(step)
        top.offer(step, {"score": step})
        newest.save(step)
        write_json(write_json_at, {"step": step})
        # What the disk has at this moment; the rest is still in memory.
        lost, after = tmp_path / "lost", tmp_path / "after"
        shutil.copy(image, lost)
        after.mkdir(exist_ok=True)
        assert run_quietly("mount", "-o", "loop", lost, after)
        try:
            there = after / "runs" / "mine"
            assert find_checkpoint(there) == str(there / "checkpoints" / f"step-{step}")
            assert find_checkpoint(there, "best").endswith(f"/step-{step}")
            assert read_json(there / "config.json") == {"step": step}
            again = Run()
            latest(again, there).restore()
            again.assert_at(step)
        finally:
            run_quietly("umount", after)
