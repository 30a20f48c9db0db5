"""Whether higher or lower values of a metric are better, and the best one so far.

better_mode("val_f1")                     # "max"
best = BestSoFar("val_loss", mode=None, min_change=0.0)
best.update(row)                          # whether this row is better than all before
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lenet_tf.errors import UsageError
from lenet_tf.train.record import ActionState

# End of a metric's name -> which of its values are better.
_MODES: dict[str, str] = {
    "accuracy": "max",
    "auc": "max",
    "f1": "max",
    "iou": "max",
    "loss": "min",
    "error": "min",
    "perplexity": "min",
}


def better_mode(metric: str, mode: str | None = None) -> str:
    """Returns whether higher ("max") or lower ("min") values of a metric are better.

    Args:
      metric: Name of the metric. If it ends in accuracy, auc, f1 or iou, higher values
        are better; if it ends in loss, error or perplexity, lower ones are.
      mode: "max" or "min" for any other name; None to go by the name.

    Raises:
      UsageError: The mode is unknown, or it is needed and not given.
    """
    if mode is None:
        for end, known in _MODES.items():
            if metric.endswith(end):
                return known
    if mode in ("max", "min"):
        return mode
    raise UsageError(
        f"mode is {mode!r} for {metric!r}, whose name does not tell: say mode='max' if "
        "higher values are better, mode='min' if lower ones are, or correct the name"
    )


class BestSoFar:
    """The best value of a metric in the rows of the history so far.

    Args:
      metric: Name of the metric in the rows, such as "val_loss".
      mode: "max" or "min"; see `better_mode`.
      min_change: Number by which a value must be better than the best one to count as
        better, at least 0.

    Attributes:
      metric: As given.
      value: Best value; None before the first one.

    Raises:
      UsageError: `min_change` is below 0, or `mode` is needed or wrong.
    """

    def __init__(self, metric: str, mode: str | None, min_change: float) -> None:
        if not min_change >= 0:
            raise UsageError(f"min_change is {min_change}: it must be at least 0")
        self.metric, self._mode = metric, better_mode(metric, mode)
        self._min_change = min_change
        self.value: float | None = None

    def check(self, names: Iterable[str]) -> None:
        """Raises UsageError if the metric is not among these names."""
        metrics = [name for name in names if name not in ("epoch", "step")]
        if self.metric not in metrics:
            raise UsageError(
                f"there is no metric {self.metric!r} in the history: choose one of "
                f"{', '.join(metrics)}"
            )

    def update(self, row: Mapping[str, float]) -> bool:
        """Takes the next row; returns whether it is better than all before.

        NaN is never better. The first value that is not NaN always is.

        Raises:
          UsageError: The row does not have the metric.
        """
        self.check(row)
        value = row[self.metric]
        if math.isnan(value) or not self._is_better(value):
            return False
        self.value = value
        return True

    def _is_better(self, value: float) -> bool:
        if self.value is None:
            return True
        if self._mode == "max":
            return value - self._min_change > self.value
        return value + self._min_change < self.value

    def state(self) -> ActionState:
        """Returns the metric, its mode and its best value, as JSON values."""
        return {"metric": self.metric, "mode": self._mode, "best": self.value}

    def restore(self, state: ActionState) -> bool:
        """Restores what `state` returned, unless it is for another metric or mode.

        Returns:
          Whether it was restored.
        """
        if (state["metric"], state["mode"]) != (self.metric, self._mode):
            return False
        self.value = None if state["best"] is None else float(state["best"])
        return True
