"""Behaviour of lenet_tf.checkpoint.storage."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from small_run import Run, best, latest, steps_in

from lenet_tf.checkpoint.restore import find_checkpoint
from lenet_tf.checkpoint.storage import (
    delete,
    find_damage,
    list_checkpoints,
    newest_whole,
    remove_unfinished,
    write,
)
from lenet_tf.errors import CheckpointError

NAMES = ["a[bc]d", "a[", "a*", "what?", "back\\slash", "\\[x\\]", "{a,b}", "ü 9"]


def save(directory: pathlib.Path, *steps: int) -> None:
    """Writes a checkpoint for each step, without a state file."""
    for step in steps:
        run = Run()
        run.go_to(step)
        write(run.checkpoint, str(directory / f"step-{step}"))


@pytest.fixture
def foreign(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that every user can reach, and that is removed in the end."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def no_privileges() -> Iterator[None]:
    """Lets permissions count, for root too."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_a_folder_of_any_name_is_resumed_and_found(
    tmp_path: pathlib.Path, name: str
) -> None:
    workdir, run = tmp_path / name, Run()
    manager = latest(run, workdir, keep=2)
    for step in (1, 2, 3):
        run.go_to(step)
        best(run, workdir).offer(step, {"score": step})
        manager.save(step)
    again = Run()
    restored = latest(again, workdir).restore()
    assert restored is not None
    assert restored.path == str(workdir / "checkpoints" / "step-3")
    again.assert_at(3)
    assert steps_in(workdir / "checkpoints") == [2, 3]
    assert steps_in(workdir / "best") == [3]
    for which, folder in (("latest", "checkpoints"), ("best", "best")):
        expected = str(workdir / folder / "step-3")
        assert find_checkpoint(workdir, which) == expected
        assert find_checkpoint(str(workdir), which) == expected


def test_a_pattern_in_a_name_does_not_take_another_runs_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    save(tmp_path / "ab", 1)
    (tmp_path / "a*").mkdir()
    assert newest_whole(tmp_path / "a*") is None
    assert find_damage(str(tmp_path / "a*" / "step-1")) == "its index file is missing"
    delete(str(tmp_path / "a*" / "step-1"))
    assert steps_in(tmp_path / "ab") == [1]


def test_only_names_of_our_own_are_checkpoints(tmp_path: pathlib.Path) -> None:
    save(tmp_path, 7, 10)
    for name in ("step-٣", "step-²", "step-", "step-1x", "model-3", "step-" + "9" * 30):
        for end in (".index", ".data-00000-of-00001"):
            (tmp_path / f"{name}{end}").write_text("other")
    (tmp_path / "step-12.index").mkdir()
    steps = [str(tmp_path / "step-10"), str(tmp_path / "step-7")]
    assert list_checkpoints(str(tmp_path)) == steps
    assert newest_whole(tmp_path) == steps[0]


def test_what_unfinished_saves_have_left_is_removed_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    for name in ("step-3_temp", "pending-3_temp", "my-notes_temp", "step-x_temp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("x")
    remove_unfinished(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["my-notes_temp", "step-x_temp"]
    remove_unfinished(tmp_path / "none")


def test_a_first_save_that_fails_does_not_speak_of_one_before(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "step-1.index").mkdir()
    with pytest.raises(CheckpointError, match="step-1 cannot be saved: ") as error:
        write(Run().checkpoint, str(tmp_path / "step-1"))
    assert not set("\n{}[]") & set(str(error.value).partition(": ")[2])
    assert os.listdir(tmp_path) == ["step-1.index"]
    save(tmp_path, 2)
    with pytest.raises(CheckpointError, match="saved, the one before it is whole: "):
        write(Run().checkpoint, str(tmp_path / "step-1"))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="step-1 cannot be saved: File exists"):
        write(Run().checkpoint, str(tmp_path / "file" / "step-1"))


def test_what_may_not_be_read_is_not_called_damaged(foreign: pathlib.Path) -> None:
    save(foreign / "checkpoints", 1, 2)
    save(foreign / "best", 2)
    (foreign / "best" / "best.json").write_text(
        '{"metric": "score", "checkpoints": [{"step": 2, "value": 1}]}'
    )
    for folder in ("checkpoints", "best"):
        data = foreign / folder / "step-2.data-00000-of-00001"
        data.chmod(0)
        which = "latest" if folder == "checkpoints" else "best"
        with (
            no_privileges(),
            pytest.raises(CheckpointError, match="Permission denied") as error,
        ):
            find_checkpoint(foreign, which)
        assert str(error.value) == (
            f"{data} cannot be read: Permission denied; ask its owner for access"
        )
        (foreign / folder).chmod(0)
        try:
            with (
                no_privileges(),
                pytest.raises(CheckpointError, match="cannot be read: Permission den"),
            ):
                find_checkpoint(foreign, which)
        finally:
            (foreign / folder).chmod(0o700)


def test_what_may_not_be_deleted_is_an_error_of_one_line(foreign: pathlib.Path) -> None:
    save(foreign, 1)
    with (
        no_privileges(),
        pytest.raises(CheckpointError, match="index cannot be deleted: Permission den"),
    ):
        delete(str(foreign / "step-1"))
    assert newest_whole(foreign) == str(foreign / "step-1")


@pytest.mark.parametrize("left", ["no index", "empty index", "empty data"])
def test_a_first_save_that_was_cut_short_does_not_count(
    tmp_path: pathlib.Path, left: str
) -> None:
    save(tmp_path, 1)
    index, data = tmp_path / "step-1.index", tmp_path / "step-1.data-00000-of-00001"
    if left == "no index":
        index.unlink()
    else:
        (index if left == "empty index" else data).write_bytes(b"")
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("damage", ["index", "data"])
def test_a_checkpoint_that_was_complete_and_is_damaged_is_an_error(
    tmp_path: pathlib.Path, damage: str
) -> None:
    save(tmp_path, 1)  # without a state file, as when somebody has removed it
    (file,) = tmp_path.glob(f"step-1.{damage}*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole") as error:
        newest_whole(tmp_path)
    assert "move the directory away" in str(error.value)
    assert "remove" not in str(error.value)
