"""Ends a run whose metric has stopped getting better.

trainer.fit(batches, epochs=100, actions=[Patience("val_loss", rows=5)], ...)
"""

from __future__ import annotations

from collections.abc import Sequence

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import Enough, Moment
from lenet_tf.train.better import BestSoFar
from lenet_tf.train.record import ActionState
from lenet_tf.train.state import TrainState


class Patience:
    """Raises `Enough` when a metric has not improved for `rows` consecutive rows.

    It decides as `keras.callbacks.EarlyStopping` does, except that NaN is never better,
    not even in the first row. The weights stay those of the last step; those of the
    best row are kept by `Saver(best=...)`.

    Its memory is in the checkpoints. If the run is later asked for more epochs, the
    count starts again: it has `rows` more rows to improve.

    Args:
      metric: Name of the metric in the rows of the history, such as "val_loss".
      rows: Number of consecutive rows without improvement that end the run, at least 1.
        By default there is a row for each epoch.
      mode: "max" if higher values are better, "min" if lower ones are. It can be left
        out if the name tells; see `lenet_tf.train.better_mode`.
      min_change: Number by which a value must be better than the best one to count as
        better, at least 0.

    Raises:
      UsageError: An argument is wrong.
    """

    def __init__(
        self,
        metric: str,
        rows: int = 5,
        mode: str | None = None,
        min_change: float = 0.0,
    ) -> None:
        if rows < 1:
            raise UsageError(f"rows is {rows}: give 1 or more")
        self._best = BestSoFar(metric, mode, min_change)
        self._rows, self._waited = rows, 0

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Raises UsageError if the metric is not one of the run's."""
        self._best.check(metrics)

    def __call__(self, moment: Moment) -> None:
        """Checks the row, if there is one.

        Raises:
          Enough: The metric has not improved for `rows` rows.
          UsageError: The row does not have the metric.
        """
        if moment.row is None:
            return
        self._waited = 0 if self._best.update(moment.row) else self._waited + 1
        if self._waited >= self._rows:
            self._waited = 0  # for a run that goes on after all
            raise Enough(
                f"{self._best.metric} has not become better for {self._rows} rows "
                f"(the best is {self._best.value})"
            )

    def state(self) -> ActionState:
        """Returns the best value and the number of rows since, as JSON values."""
        return {**self._best.state(), "waited": self._waited}

    def restore(self, state: ActionState) -> None:
        """Restores what `state` returned, unless it is for another metric."""
        if self._best.restore(state):
            self._waited = int(state["waited"])
