"""A run in small, and the managers of its checkpoints."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.latest import LatestCheckpoints
from lenet_tf.train.record import RunRecord


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
