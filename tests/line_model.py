"""A model of one weight, for tests of what happens around training.

An epoch has 10 steps, in inner loops of 4, 4 and 2.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

import lenet_tf


class Line(tf.Module):
    """y = w * x"""

    def __init__(self) -> None:
        super().__init__(name="line")
        self.w = tf.Variable(0.0, name="w")


def make_trainer(
    in_step: Callable[[np.ndarray, np.ndarray], None] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> lenet_tf.Trainer:
    """Makes a trainer.

    Args:
      in_step: Python function that each step calls, as does each step of an evaluation,
        with the number of the step and whether it is one of training.
      strategy: Strategy to train with.
    """

    def forward(
        model: Line, batch: Mapping[str, tf.Tensor], training: bool
    ) -> Mapping[str, tf.Tensor]:
        loss = (model.w * batch["x"] - batch["y"]) ** 2
        if in_step is None:
            return {"loss": loss}
        arguments = [batch["seed"][1], training]
        with tf.control_dependencies([tf.numpy_function(in_step, arguments, [])]):
            return {"loss": tf.identity(loss)}

    with (strategy or tf.distribute.get_strategy()).scope():
        model = Line()
    return lenet_tf.Trainer(
        model, lenet_tf.Adam(0.01), forward, strategy=strategy, steps_per_loop=4
    )


def make_batches() -> lenet_tf.Batches:
    """Makes 10 batches of 4 examples of y = 3 x."""
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    return lenet_tf.Batches({"x": x, "y": 3 * x}, 4, seed=0)


def checkpoints(folder: pathlib.Path) -> list[str]:
    """Lists the names of a run's latest checkpoints."""
    return sorted(path.stem for path in (folder / "checkpoints").glob("*.index"))
