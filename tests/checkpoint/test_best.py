"""Behaviour of lenet_tf.checkpoint.best."""

from __future__ import annotations

import math
import pathlib
import shutil

import numpy as np
import pytest
from small_run import Model, Run, best, latest, offer_all, steps_in

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.restore import (
    find_checkpoint,
    restore_checkpoint,
    restore_model,
)
from lenet_tf.errors import CheckpointError


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


def test_a_folder_may_be_given_as_text(tmp_path: pathlib.Path) -> None:
    manager = BestCheckpoints(Run().checkpoint, str(tmp_path / "top"), "score")
    assert manager.offer(1, {"score": 0.5})
    assert manager.path() == str(tmp_path / "top" / "step-1")


def test_a_metric_that_is_not_offered_is_named_with_those_that_are(
    tmp_path: pathlib.Path,
) -> None:
    manager = BestCheckpoints(Run().checkpoint, tmp_path, "val_mae", "min")
    with pytest.raises(CheckpointError, match="'val_mae': choose one of mae, loss"):
        manager.offer(1, {"mae": 0.1, "loss": 0.2})


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_listed_best_that_is_not_whole_is_named_and_replaced_by_the_next_best(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run = Run()
    offer_all(run, best(run, tmp_path, keep=2), {1: 0.9, 2: 0.8})
    for file in (tmp_path / "best").glob("step-1.*"):
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-20])
    left = sorted((tmp_path / "best").glob("step-1.*"))
    again = Run()
    manager = best(again, tmp_path, keep=2)
    manager.clean()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"best checkpoint {tmp_path / 'best' / 'step-1'} is dama")
    assert sorted((tmp_path / "best").glob("step-1.*")) == left
    assert offer_all(again, manager, {3: 0.1}) == [True]
    assert [entry["step"] for entry in manager.entries()] == [2, 3]
    assert steps_in(tmp_path / "best") == [2, 3]


def test_cleaning_deletes_what_is_not_listed(tmp_path: pathlib.Path) -> None:
    run = Run()
    manager = best(run, tmp_path)
    offer_all(run, manager, {1: 0.9})
    run.checkpoint.write(str(tmp_path / "best" / "step-2"))
    (tmp_path / "best" / "mine-3.index").write_text("mine")
    manager.clean()
    assert sorted(path.name for path in (tmp_path / "best").glob("*.index")) == [
        "mine-3.index",
        "step-1.index",
    ]


def test_an_entry_without_a_number_is_damage(tmp_path: pathlib.Path) -> None:
    for entry in ('{"step": 1, "value": NaN}', '{"step": -1, "value": 1}'):
        (tmp_path / "best.json").write_text(
            f'{{"metric": "score", "checkpoints": [{entry}]}}'
        )
        with pytest.raises(
            CheckpointError, match=r"best\.json is damaged: put a copy back"
        ):
            BestCheckpoints(Run().checkpoint, tmp_path, "score").entries()
