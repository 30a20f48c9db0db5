"""Lowers the learning rate when a metric has stopped getting better.

optimizer = Adam(tf.Variable(1e-3))       # a variable, so that it can be changed
trainer = Trainer(model, optimizer, forward)
trainer.fit(batches, epochs=50, actions=[ReduceOnPlateau("val_loss", rows=3)], ...)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import value_of
from lenet_tf.train.actions import Moment
from lenet_tf.train.better import BestSoFar
from lenet_tf.train.record import ActionState
from lenet_tf.train.state import TrainState


class ReduceOnPlateau:
    """Multiplies the learning rate by a factor when a metric stops getting better.

    It decides as `keras.callbacks.ReduceLROnPlateau` does, except that NaN is never
    better, not even in the first row. The rate is a `tf.Variable` of the optimizer. It
    is in the checkpoints, and so is the memory of this action.

    Args:
      metric: Name of the metric in the rows of the history, such as "val_loss".
      factor: Number that the rate is multiplied by, above 0 and below 1.
      rows: Number of consecutive rows without improvement after which the rate is
        lowered, at least 1. By default there is a row for each epoch.
      mode: "max" if higher values are better, "min" if lower ones are. It can be left
        out if the name tells; see `lenet_tf.train.better_mode`.
      min_change: Number by which a value must be better than the best one to count as
        better, at least 0.
      cooldown: Number of rows after a reduction that are not counted.
      min_rate: Lower bound of the rate.
      update: Name of the update whose optimizer has the rate. It must be given if there
        are several updates.

    Raises:
      UsageError: An argument is wrong.
    """

    def __init__(
        self,
        metric: str,
        factor: float = 0.1,
        rows: int = 10,
        mode: str | None = None,
        min_change: float = 1e-4,
        cooldown: int = 0,
        min_rate: float = 0.0,
        update: str | None = None,
    ) -> None:
        if not 0 < factor < 1:
            raise UsageError(f"factor is {factor}: it must be above 0 and below 1")
        if rows < 1 or cooldown < 0 or not min_rate >= 0:
            raise UsageError(
                f"rows is {rows}, cooldown is {cooldown}, min_rate is "
                f"{min_rate}: rows must be at least 1, the others at least 0"
            )
        self._best = BestSoFar(metric, mode, min_change)
        self._factor, self._rows = factor, rows
        self._cooldown, self._min_rate, self._update = cooldown, min_rate, update
        self._cooling, self._waited = 0, 0  # rows left to cool; rows not better

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Checks that the metric exists, and that the rate can be changed.

        Raises:
          UsageError: There is no such metric or update, or the rate is not a variable.
        """
        self._best.check(metrics)
        self._rate(state)

    def __call__(self, moment: Moment) -> None:
        """Checks the row, if there is one, and lowers the rate if it is due.

        Raises:
          UsageError: As `check`.
        """
        rate = self._rate(moment.state)
        if moment.row is None:
            return
        better = self._best.update(moment.row)
        if self._cooling > 0:
            self._cooling -= 1
            self._waited = 0
        if better:
            self._waited = 0
        elif self._cooling == 0:
            self._waited += 1
            if self._waited >= self._rows:
                self._lower(rate)

    def _lower(self, rate: tf.Variable) -> None:
        before = float(value_of(rate))
        if before <= rate.dtype.as_numpy_dtype(self._min_rate):
            return
        rate.assign(max(before * self._factor, self._min_rate))
        logging.info(
            "%s has not become better for %d rows: the learning rate is now %.3g",
            self._best.metric,
            self._waited,
            float(value_of(rate)),
        )
        self._cooling, self._waited = self._cooldown, 0

    def _rate(self, state: TrainState) -> tf.Variable:
        """Returns the variable of the learning rate."""
        names = list(state.updates)
        if self._update is None and len(names) > 1:
            raise UsageError(
                f"update is None, but there are several: give one of {', '.join(names)}"
            )
        name = names[0] if self._update is None else self._update
        if name not in names:
            raise UsageError(f"update is {name!r}: give one of {', '.join(names)}")
        rate = getattr(state.updates[name].optimizer, "learning_rate", None)
        if not isinstance(rate, tf.Variable):
            given = rate if isinstance(rate, float | int) else "a schedule"
            raise UsageError(
                f"the learning rate of {name!r} is {given}, which cannot be changed: "
                "make it a variable, as in Adam(tf.Variable(1e-3))"
            )
        return rate

    def state(self) -> ActionState:
        """Returns the best value and the counters, as JSON values."""
        counters = {"waited": self._waited, "cooling": self._cooling}
        return {**self._best.state(), **counters}

    def restore(self, state: ActionState) -> None:
        """Restores what `state` returned, unless it is for another metric."""
        if self._best.restore(state):
            self._waited, self._cooling = int(state["waited"]), int(state["cooling"])
