"""When a run makes rows of its history, on which data, and when it ends."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.parallel import make_strategy
from lenet_tf.train.rows import Rows

EXAMPLES, SIZE = 21, 4  # 6 steps an epoch, the last with one example


def arrays(examples: int = EXAMPLES, slope: float = 3) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=examples).astype(np.float32)
    return {"x": x, "y": (slope * x).astype(np.float32)}


def batches(examples: int = EXAMPLES, size: int = SIZE) -> lenet_tf.Batches:
    return lenet_tf.Batches(arrays(examples), size, seed=0)


def forward(model: tf.Module, batch: dict, training: bool) -> dict:
    error = model(batch["x"][:, None])[:, 0] - batch["y"]
    return {"loss": error**2, "mae": tf.abs(error)}


def trainer(replicas: int = 1, **options: Any) -> lenet_tf.Trainer:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = lenet_tf.nn.Dense(1, 1, (0, 0), "line")
    rate = options.pop("rate", 0.05)
    options.setdefault("steps_per_loop", 5)
    return lenet_tf.Trainer(
        model, lenet_tf.SGD(rate), forward, strategy=strategy, **options
    )


def steps_of(trainer: lenet_tf.Trainer) -> list[int]:
    return [int(row["step"]) for row in trainer.record.rows]


def expected_rows(every: str, number: int, end: int) -> Iterator[int]:
    """The steps with rows, found by counting batch by batch."""
    examples, row = 0, 0
    for step in range(1, end + 1):
        examples += min(SIZE, EXAMPLES - examples % EXAMPLES)
        count = {"steps": step, "examples": examples}[every]
        if count // number > row or step == end:
            row = count // number
            yield step


@pytest.mark.parametrize("every", ["steps", "examples"])
@pytest.mark.parametrize("number", [1, 3, 5, 6, 7, 12, 21, 22, 50, 1000])
@pytest.mark.parametrize("end", [12, 17])
def test_rows_are_at_multiples_and_at_the_end(
    every: str, number: int, end: int
) -> None:
    rows = Rows(
        batches(),
        epochs=9,
        steps=end,
        row_steps=number if every == "steps" else None,
        row_examples=number if every == "examples" else None,
    )
    last, found = 0, []
    for step in range(1, end + 1):
        if rows.is_due(step, last):
            last = step
            found.append(step)
    assert found == list(expected_rows(every, number, end))


def test_by_default_there_is_a_row_for_each_epoch_and_for_a_cut_off_end() -> None:
    one = trainer()
    history = one.fit(batches(), steps=15)
    assert steps_of(one) == [6, 12, 15]
    assert [row["epoch"] for row in one.record.rows] == [1, 2, 3]
    assert len(history["loss"]) == 3
    one.fit(batches(), steps=15)
    assert steps_of(one) == [6, 12, 15]  # it is done
    one.fit(batches(), epochs=4)
    assert steps_of(one) == [6, 12, 15, 18, 24]


@pytest.mark.parametrize(
    ("ends", "end"),
    [({"epochs": 2}, 12), ({"steps": 7}, 7), ({"epochs": 1, "steps": 9}, 6)],
)
def test_a_run_ends_by_epochs_or_steps(ends: dict[str, int], end: int) -> None:
    one = trainer()
    one.fit(batches(), **ends)
    assert int(one.state.step.numpy()) == end


def test_a_row_has_the_means_since_the_last_row() -> None:
    """Without learning, a row's loss is that of the examples since the row before."""
    one = trainer(rate=1e-30)
    data = batches()
    one.fit(data, epochs=2, row_steps=4)
    assert steps_of(one) == [4, 8, 12]
    losses = []
    for block in data.blocks(epochs=2):
        x, y = block["x"].numpy(), block["y"].numpy()
        error = one.model(tf.reshape(x, [-1, 1])).numpy().reshape(x.shape) - y
        losses += list(zip(error**2, block["weight"].numpy(), strict=True))
    for row, first in zip(one.record.rows, (0, 4, 8), strict=True):
        part = losses[first : first + 4]
        total = sum(float(np.sum(loss * weight)) for loss, weight in part)
        count = sum(float(np.sum(weight)) for _, weight in part)
        assert row["loss"] == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_rows_in_mid_epoch_survive_a_kill_bit_for_bit(
    replicas: int, tmp_path: pathlib.Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(moment: lenet_tf.Moment) -> None:
        if moment.step == 8:
            raise KilledError

    options: dict[str, Any] = {"epochs": 3, "row_steps": 4, "validation": batches(9)}
    whole, first, second = (trainer(replicas) for _ in range(3))
    history = whole.fit(batches(), **options)
    kill.after_save = True  # type: ignore[attr-defined]
    with pytest.raises(KilledError):
        saver = lenet_tf.Saver(tmp_path, steps=1)
        first.fit(batches(), saver=saver, actions=[kill], **options)
    assert second.fit(batches(), saver=lenet_tf.Saver(tmp_path), **options) == history
    assert second.record.rows == whole.record.rows
    assert steps_of(second) == [4, 8, 12, 16, 18]
    for one, other in zip(whole.model.variables, second.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_rows_and_loops_change_no_weight() -> None:
    runs = [(1, None), (5, 4), (100, 5), (3, 1)]
    weights = []
    for steps_per_loop, row_steps in runs:
        one = trainer(steps_per_loop=steps_per_loop)
        one.fit(batches(), epochs=2, row_steps=row_steps)
        weights.append([v.numpy() for v in one.model.variables])
        assert one.traces["train"] == 1
    for other in weights[1:]:
        np.testing.assert_equal(other, weights[0])


def test_a_run_may_go_on_with_other_rows(tmp_path: pathlib.Path) -> None:
    trainer().fit(batches(), epochs=1, row_steps=2, saver=lenet_tf.Saver(tmp_path))
    one = trainer()
    one.fit(batches(), epochs=2, row_examples=20, saver=lenet_tf.Saver(tmp_path))
    assert steps_of(one) == [2, 4, 6, 11, 12]


def test_several_validation_sets_have_names(tmp_path: pathlib.Path) -> None:
    other = lenet_tf.Batches(arrays(10, slope=-1), 4)
    sets = {"same": batches(9), "other": other}
    one = trainer(steps_per_loop=100)
    history = one.fit(
        batches(), epochs=2, validation=sets, saver=lenet_tf.Saver(tmp_path)
    )
    assert set(history) == {
        *("loss", "mae"),
        *("val_same_loss", "val_same_mae", "val_other_loss", "val_other_mae"),
    }
    assert history["val_same_loss"][-1] == one.evaluate(sets["same"])["loss"]
    assert history["val_other_mae"][-1] == one.evaluate(other)["mae"]
    assert history["val_other_loss"][1] > history["val_other_loss"][0]
    # By default the best is that of the first set.
    assert best(tmp_path, "val_same_loss") == [12]


def best(directory: pathlib.Path, metric: str) -> list[int]:
    kept = BestCheckpoints(tf.train.Checkpoint(), directory / "best", metric, "min")
    return [entry["step"] for entry in kept.entries()]


def test_the_best_rows_are_kept(tmp_path: pathlib.Path) -> None:
    other = lenet_tf.Batches(arrays(10, slope=1), 4)
    one = trainer(rate=0.02)
    saver = lenet_tf.Saver(
        tmp_path, best="val_mae", mode="min", keep_best=3, keep=1, steps=1
    )
    history = one.fit(batches(), epochs=3, validation=other, row_steps=2, saver=saver)
    errors = history["val_mae"]
    ranked = sorted(zip(errors, steps_of(one), strict=True))[:3]
    assert best(tmp_path, "val_mae") == [step for _, step in ranked]
    files = {path.stem for path in (tmp_path / "best").glob("*.index")}
    assert files == {f"step-{step}" for _, step in ranked}
    for error, step in ranked:
        lenet_tf.checkpoint.restore_model(one.model, tmp_path / "best" / f"step-{step}")
        assert one.evaluate(other)["mae"] == error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no end: give epochs=3, or steps=1000"),
        ({"epochs": -1}, "epochs is -1"),
        ({"steps": -1}, "steps is -1"),
        ({"epochs": 1, "row_steps": 0}, "row_steps is 0"),
        ({"epochs": 1, "row_examples": 0}, "row_examples is 0"),
        ({"epochs": 1, "row_steps": 2, "row_examples": 3}, "give one of them"),
        ({"epochs": 1, "validation": {"a": arrays()}}, "a dict as 'a'"),
        ({"epochs": 1, "validation": {"": batches()}}, "as ''"),
    ],
)
def test_a_wrong_argument_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        trainer().fit(batches(), **options)
    assert "\n" not in str(error.value)


def test_fewer_than_one_best_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(lenet_tf.UsageError, match="keep_best is 0"):
        lenet_tf.Saver(tmp_path, keep_best=0)
