"""Ends a run after a given time.

trainer.fit(batches, epochs=100, actions=[StopAfter(seconds=3600)])
"""

from __future__ import annotations

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import Enough, Moment


class StopAfter:
    """Raises `Enough` when a run has taken so much time, looking after each inner loop.

    The time is that spent in `fit`, evaluation and saving included, by all processes of
    the run together.

    Args:
      seconds: Wall-clock seconds, above 0.

    Raises:
      UsageError: `seconds` is not above 0.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds}: it must be above 0")
        self._seconds = seconds

    def __call__(self, moment: Moment) -> None:
        """Raises Enough if the time is up."""
        if moment.seconds >= self._seconds:
            raise Enough(
                f"it has taken {moment.seconds:.0f} of {self._seconds:g} seconds"
            )
