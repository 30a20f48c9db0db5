"""Ends a run after a given time.

trainer.fit(batches, epochs=100, actions=[StopAfter(seconds=3600)])
"""

from __future__ import annotations

from collections.abc import Sequence

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import Enough, Moment
from lenet_tf.train.record import ActionState
from lenet_tf.train.state import TrainState


class StopAfter:
    """Raises `Enough` after the inner loop in which a run's time is up.

    The time is that spent in `fit`, including evaluation, saving and the earlier
    processes of a resumed run. A run that it has ended goes on when given more time.

    Args:
      seconds: Wall-clock seconds, above 0.

    Raises:
      UsageError: `seconds` is not above 0.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds}: it must be above 0")
        self._seconds, self._ended = seconds, False

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Lets a run go on if a shorter time limit ended it."""
        record = state.record
        ended = record.actions.get(type(self).__name__, {}).get("ended")
        if ended and record.seconds < self._seconds:
            record.ended = None

    def __call__(self, moment: Moment) -> None:
        """Raises Enough if the time is up."""
        self._ended = moment.seconds >= self._seconds
        if self._ended:
            raise Enough(
                f"it has taken {moment.seconds:.0f} of {self._seconds:g} seconds"
            )

    def state(self) -> ActionState:
        """Returns whether it has ended the run, as JSON values."""
        return {"ended": self._ended}

    def restore(self, state: ActionState) -> None:
        """Restores what `state` returned."""
        self._ended = bool(state["ended"])
