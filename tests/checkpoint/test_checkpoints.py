"""Behaviour of lenet_tf.checkpoint."""

from __future__ import annotations

import math
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.latest import LatestCheckpoints
from lenet_tf.checkpoint.restore import (
    find_checkpoint,
    restore_checkpoint,
    restore_model,
)
from lenet_tf.errors import CheckpointError
from lenet_tf.train.state import RunRecord


class Model(tf.Module):
    """Two variables."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.w = tf.Variable(tf.fill([2, 3], value), name="w")
        self.b = tf.Variable(tf.fill([3], value), name="b")


class Run:
    """A run in small: what a new process would make anew."""

    def __init__(self, value: float = 0.0) -> None:
        self.model, self.record = Model(value), RunRecord()
        self.step = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(
            model=self.model, record=self.record, step=self.step
        )

    def go_to(self, step: int) -> None:
        """Makes every variable tell the step."""
        self.model.w.assign(tf.fill([2, 3], float(step)))
        self.model.b.assign(tf.fill([3], -float(step)))
        self.step.assign(step)
        self.record.rows.append({"step": step, "loss": 1 / step})
        self.record.seconds += 0.1

    def assert_at(self, step: int) -> None:
        """Holds the variables to be those of `go_to`."""
        np.testing.assert_array_equal(self.model.w, np.full([2, 3], step, np.float32))
        np.testing.assert_array_equal(self.model.b, np.full([3], -step, np.float32))
        assert int(self.step) == step


def steps_in(directory: pathlib.Path) -> list[int]:
    """Steps of the checkpoints whose files lie in a directory, in order."""
    indices = [path.stem for path in directory.glob("*.index")]
    data = [path.name.split(".data-")[0] for path in directory.glob("*.data-*")]
    assert sorted(indices) == sorted(data)
    return sorted(int(name.removeprefix("step-")) for name in indices)


def latest(run: Run, workdir: pathlib.Path, keep: int = 3) -> LatestCheckpoints:
    """The manager of a run's latest checkpoints."""
    return LatestCheckpoints(run.checkpoint, workdir / "checkpoints", keep)


def best(
    run: Run, workdir: pathlib.Path, mode: str = "max", keep: int = 1
) -> BestCheckpoints:
    """The manager of a run's best checkpoints."""
    return BestCheckpoints(run.checkpoint, workdir / "best", "score", mode, keep)


def offer_all(
    run: Run, manager: BestCheckpoints, scores: dict[int, float]
) -> list[bool]:
    """Offers each step with its score."""
    saved = []
    for step, score in scores.items():
        run.go_to(step)
        saved.append(manager.offer(step, {"score": score, "other": 0.0}))
    return saved


def test_a_record_comes_back_with_every_bit_of_its_floats(
    tmp_path: pathlib.Path,
) -> None:
    run, again = Run(), Run()
    losses = [0.1 + 0.2, math.pi, 1e-300, 5e-324, -0.0, math.inf]
    run.record.rows = [{"epoch": i, "loss": loss} for i, loss in enumerate(losses)]
    run.record.seconds = 1 / 3
    restore_checkpoint(again.checkpoint, run.checkpoint.save(str(tmp_path / "x")))
    assert again.record.rows == run.record.rows
    assert again.record.seconds == 1 / 3
    assert math.copysign(1, again.record.rows[4]["loss"]) == -1
    assert isinstance(again.record.rows[0]["epoch"], int)


def test_a_nan_in_a_record_comes_back_as_nan(tmp_path: pathlib.Path) -> None:
    run, again = Run(), Run()
    run.record.rows = [{"loss": math.nan}]
    restore_checkpoint(again.checkpoint, run.checkpoint.save(str(tmp_path / "x")))
    assert math.isnan(again.record.rows[0]["loss"])


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
    assert manager.restore() == str(tmp_path / "checkpoints" / "step-6")
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


@pytest.mark.parametrize(
    ("mode", "expected"), [("max", [(5, 0.9), (2, 0.7)]), ("min", [(1, 0.1), (3, 0.2)])]
)
def test_the_best_are_kept_best_first_by_max_or_min(
    tmp_path: pathlib.Path, mode: str, expected: list[tuple[int, float]]
) -> None:
    run = Run()
    manager = best(run, tmp_path, mode, keep=2)
    offer_all(run, manager, {1: 0.1, 2: 0.7, 3: 0.2, 4: 0.3, 5: 0.9})
    entries = [(entry["step"], entry["value"]) for entry in manager.entries()]
    assert entries == expected
    assert steps_in(tmp_path / "best") == sorted(step for step, _ in expected)
    assert manager.path() == str(tmp_path / "best" / f"step-{expected[0][0]}")
    model = Model()
    restore_model(model, str(manager.path()))
    np.testing.assert_array_equal(model.b, np.full([3], -expected[0][0]))


def test_an_offer_tells_whether_it_was_saved(tmp_path: pathlib.Path) -> None:
    run = Run()
    scores = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.55}
    assert offer_all(run, best(run, tmp_path), scores) == [True, False, True, False]


def test_of_equal_values_the_older_is_kept(tmp_path: pathlib.Path) -> None:
    run = Run()
    manager = best(run, tmp_path, keep=2)
    scores = {1: 0.5, 2: 0.5, 3: 0.5}
    assert offer_all(run, manager, scores) == [True, True, False]
    assert [entry["step"] for entry in manager.entries()] == [1, 2]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_never_kept_not_even_as_the_first(
    tmp_path: pathlib.Path, mode: str
) -> None:
    run = Run()
    manager = best(run, tmp_path, mode, keep=3)
    scores = {1: math.nan, 2: 0.5, 3: math.nan}
    assert offer_all(run, manager, scores) == [False, True, False]
    assert [entry["step"] for entry in manager.entries()] == [2]
    assert steps_in(tmp_path / "best") == [2]


def test_a_restart_knows_the_best_so_far(tmp_path: pathlib.Path) -> None:
    run = Run()
    offer_all(run, best(run, tmp_path, keep=2), {1: 0.7, 2: 0.8})
    again = Run()
    manager = best(again, tmp_path, keep=2)
    assert offer_all(again, manager, {3: 0.6, 4: 0.75}) == [False, True]
    assert [entry["step"] for entry in manager.entries()] == [2, 4]
    assert steps_in(tmp_path / "best") == [2, 4]


def test_a_step_that_is_offered_again_after_a_restart_is_listed_once(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    offer_all(run, best(run, tmp_path, keep=2), {1: 0.7, 2: 0.8})
    again = Run()
    manager = best(again, tmp_path, keep=2)
    assert offer_all(again, manager, {2: 0.8}) == [True]
    assert [entry["step"] for entry in manager.entries()] == [2, 1]


def test_the_latest_and_the_best_do_not_evict_each_other(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    newest, top = latest(run, tmp_path, keep=2), best(run, tmp_path, keep=2)
    scores = [0.9, 0.8, 0.1, 0.2, 0.3, 0.95]
    for step, score in enumerate(scores, start=1):
        run.go_to(step)
        top.offer(step, {"score": score})
        newest.save(step)
        assert steps_in(tmp_path / "checkpoints") == [s for s in (step - 1, step) if s]
    assert steps_in(tmp_path / "best") == [1, 6]
    for path, step in [
        (find_checkpoint(tmp_path, "latest"), 6),
        (find_checkpoint(tmp_path, "best"), 6),
        (str(tmp_path / "best" / "step-1"), 1),
    ]:
        model = Model()
        restore_model(model, path)
        np.testing.assert_array_equal(model.b, np.full([3], -step))


def test_a_best_checkpoint_holds_the_whole_run(tmp_path: pathlib.Path) -> None:
    run, again = Run(), Run()
    latest(run, tmp_path).save(0)
    manager = best(run, tmp_path)
    offer_all(run, manager, {1: 0.5})
    restore_checkpoint(again.checkpoint, str(manager.path()))
    again.assert_at(1)
    assert again.record.rows == run.record.rows


def test_a_best_checkpoint_that_came_before_any_latest_holds_the_whole_run(
    tmp_path: pathlib.Path,
) -> None:
    run, again = Run(), Run()
    manager = best(run, tmp_path)
    offer_all(run, manager, {1: 0.5})
    restore_checkpoint(again.checkpoint, str(manager.path()))
    again.assert_at(1)


def test_a_variable_that_the_checkpoint_lacks_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    run = Run()
    run.model.extra = tf.Variable([1.0], name="newcomer")
    with pytest.raises(CheckpointError, match="it lacks model/extra"):
        restore_checkpoint(run.checkpoint, path)


def test_a_variable_that_the_program_lacks_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.model.extra = tf.Variable([1.0], name="surplus")
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match=r"does not fit this program.*extra"):
        restore_checkpoint(Run().checkpoint, path)


def test_a_variable_of_another_shape_is_an_error_of_one_line(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.model.b = tf.Variable(tf.zeros([5]), name="b")
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match="does not fit this program") as error:
        restore_checkpoint(Run().checkpoint, path)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="does not fit"):
        restore_model(Model(), path)


def test_a_checkpoint_with_a_broken_index_is_an_error(tmp_path: pathlib.Path) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    pathlib.Path(f"{path}.index").write_bytes(b"")
    with pytest.raises(CheckpointError, match="does not fit"):
        restore_checkpoint(Run().checkpoint, path)


def test_a_checkpoint_with_truncated_data_is_an_error(tmp_path: pathlib.Path) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    data = pathlib.Path(f"{path}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(CheckpointError):
        restore_checkpoint(Run().checkpoint, path)


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    for call in (
        lambda path: restore_checkpoint(Run().checkpoint, path),
        lambda path: restore_model(Model(), path),
    ):
        with pytest.raises(CheckpointError, match="step-9"):
            call(str(tmp_path / "step-9"))


def test_restoring_a_model_takes_its_weights_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.go_to(4)
    path = latest(run, tmp_path).save(4)
    model = Model()
    restore_model(model, path)
    np.testing.assert_array_equal(model.w, run.model.w)
    np.testing.assert_array_equal(model.b, run.model.b)


def test_restoring_a_model_with_a_variable_more_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    model = Model()
    model.extra = tf.Variable([1.0], name="newcomer")
    with pytest.raises(CheckpointError, match="newcomer"):
        restore_model(model, path)


def test_a_restored_value_stays_when_the_program_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    path = Run(3.0).checkpoint.save(str(tmp_path / "x"))
    run = Run()
    restore_checkpoint(run.checkpoint, path)
    run.model.w.assign_add(tf.ones([2, 3]))
    np.testing.assert_array_equal(run.model.w, np.full([2, 3], 4.0))


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


def test_find_gives_the_newest_and_the_best(tmp_path: pathlib.Path) -> None:
    run = Run()
    offer_all(run, best(run, tmp_path), {1: 0.9, 2: 0.5})
    for step in (1, 2):
        latest(run, tmp_path).save(step)
    assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "step-2")
    assert find_checkpoint(tmp_path, "best") == str(tmp_path / "best" / "step-1")


def test_a_workdir_that_was_moved_is_found_and_resumed(tmp_path: pathlib.Path) -> None:
    run = Run()
    offer_all(run, best(run, tmp_path / "old"), {1: 0.9})
    latest(run, tmp_path / "old").save(1)
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert find_checkpoint(tmp_path / "new", "best") == str(
        tmp_path / "new/best/step-1"
    )
    assert find_checkpoint(tmp_path / "new") == str(tmp_path / "new/checkpoints/step-1")
    again = Run()
    latest(again, tmp_path / "new").restore()
    again.assert_at(1)


@pytest.mark.parametrize("which", ["latest", "best"])
def test_find_tells_of_a_workdir_without_checkpoints(
    tmp_path: pathlib.Path, which: str
) -> None:
    with pytest.raises(CheckpointError, match=f"has no {which} checkpoint: train"):
        find_checkpoint(tmp_path, which)


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
