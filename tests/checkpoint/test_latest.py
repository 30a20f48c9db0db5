"""Behaviour of lenet_tf.checkpoint.latest."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from small_run import Run, best, latest, steps_in

from lenet_tf.checkpoint.latest import LatestCheckpoints
from lenet_tf.checkpoint.restore import Restored
from lenet_tf.errors import CheckpointError


def test_the_newest_checkpoints_are_kept(tmp_path: pathlib.Path) -> None:
    run = Run()
    manager = latest(run, tmp_path, keep=2)
    for step in (3, 6, 9, 12):
        run.go_to(step)
        path = manager.save(step)
        assert path == str(tmp_path / "checkpoints" / f"step-{step}")
    assert steps_in(tmp_path / "checkpoints") == [9, 12]


def test_a_restart_restores_the_newest_and_goes_on_dropping_the_oldest(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    manager = latest(run, tmp_path, keep=2)
    for step in (3, 6):
        run.go_to(step)
        manager.save(step)

    again = Run()
    manager = latest(again, tmp_path, keep=2)
    restored = manager.restore()
    assert restored == Restored(str(tmp_path / "checkpoints" / "step-6"))
    again.assert_at(6)
    assert again.record.rows == run.record.rows
    assert again.record.seconds == run.record.seconds
    again.go_to(9)
    manager.save(9)
    assert steps_in(tmp_path / "checkpoints") == [6, 9]


def test_restoring_without_a_checkpoint_changes_nothing(tmp_path: pathlib.Path) -> None:
    run = Run(7.0)
    assert latest(run, tmp_path).restore() is None
    assert float(run.model.w[0, 0]) == 7.0
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_was_just_saved_or_restored_is_not_written_again(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.go_to(3)
    manager = latest(run, tmp_path)
    path = manager.save(3)
    written = pathlib.Path(f"{path}.index").stat().st_mtime_ns
    assert manager.save(3) == path
    again = latest(Run(), tmp_path)
    again.restore()
    assert again.save(3) == path
    assert pathlib.Path(f"{path}.index").stat().st_mtime_ns == written


def test_checkpoints_are_restored_under_any_number_of_replicas(
    tmp_path: pathlib.Path, strategy: tf.distribute.Strategy
) -> None:
    run = Run()
    run.go_to(5)
    latest(run, tmp_path).save(5)
    with strategy.scope():
        again = Run()
    latest(again, tmp_path).restore()
    for copy in strategy.experimental_local_results(again.model.w):
        np.testing.assert_array_equal(copy, np.full([2, 3], 5.0))


def test_managers_refuse_to_keep_nothing_and_a_mode_that_is_none(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    with pytest.raises(CheckpointError, match="keep is 0: keep at least one"):
        latest(run, tmp_path, keep=0)
    with pytest.raises(CheckpointError, match="keep is 0"):
        best(run, tmp_path, keep=0)
    with pytest.raises(CheckpointError, match=r"mode is 'largest'.*'max' or 'min'"):
        best(run, tmp_path, mode="largest")


def files_in(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of each file."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.iterdir()
    }


def test_a_worker_that_does_not_write_restores_and_leaves_every_file_alone(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    chief = latest(run, tmp_path, keep=3)
    for step in (3, 6, 9):
        run.go_to(step)
        chief.save(step)
    directory = tmp_path / "checkpoints"
    (directory / "step-9.index").write_bytes(b"")
    before = files_in(directory)
    again = Run()
    worker = LatestCheckpoints(again.checkpoint, directory, keep=1, writes=False)
    restored = worker.restore()
    assert restored is not None
    assert restored.path == str(directory / "step-6")
    again.assert_at(6)
    assert files_in(directory) == before
    with pytest.raises(CheckpointError, match="only restores"):
        worker.save(12)
    assert files_in(directory) == before


def test_a_folder_may_be_given_as_text(tmp_path: pathlib.Path) -> None:
    run = Run()
    run.go_to(2)
    path = LatestCheckpoints(run.checkpoint, str(tmp_path / "mine")).save(2)
    assert path == str(tmp_path / "mine" / "step-2")
    again = Run()
    restored = LatestCheckpoints(again.checkpoint, str(tmp_path / "mine")).restore()
    assert restored == Restored(path)
    again.assert_at(2)


def test_a_save_in_the_background_that_fails_is_not_the_newest(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    manager = LatestCheckpoints(
        run.checkpoint, tmp_path, snapshot=lambda: Run(1.0).checkpoint
    )
    manager.save(1)
    manager.wait()
    (tmp_path / "step-2.index").mkdir()
    manager.save(2)
    with pytest.raises(CheckpointError, match="step-2 cannot be saved"):
        manager.wait()
    assert manager.newest == str(tmp_path / "step-1")


def test_optional_keys_are_handed_on_and_what_was_missing_is_told(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    latest(run, tmp_path).save(1)
    again = Run()
    again.model.totals = {"new": tf.Variable(4.0)}
    with pytest.raises(CheckpointError, match="it lacks model/totals/new"):
        latest(again, tmp_path).restore()
    restored = latest(again, tmp_path).restore(optional=["model/totals/"])
    assert restored is not None
    assert restored.missing == ("model/totals/new",)
    assert float(again.model.totals["new"]) == 4.0
