"""What happens between inner loops.

    trainer.fit(batches, epochs=3, actions=[at(every_epoch(), print_line)])

An action is a callable on a `Moment`. *What* it does and *when* it runs are separate:
`at(when, action)` joins the two. Actions are called in turn, and the run is saved after
them, so that what they change is in the checkpoint. An action that reports what was
saved has an attribute `after_save` that is true, and is called last.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from lenet_tf.errors import UsageError
from lenet_tf.train.state import TrainState


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """Raised by an action to end the run in order: it is saved, and `fit` returns.

    raise Enough("the validation loss has not fallen for 5 epochs")
    """


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a run stands after an inner loop.

    Attributes:
      step: Number of global batches trained on so far.
      loop_steps: Number of them in the inner loop that has just ended.
      epoch: Epoch of the last of them, from 1.
      epochs: Number of epochs that the run is to have.
      steps_per_epoch: Number of batches in an epoch.
      images_per_second: Examples trained on a second, of this epoch's inner loops.
      seconds: Wall-clock seconds in `fit`, over all the processes that led here.
      row: The epoch's row of the history when the epoch has just ended, else None.
      metrics: Training metrics of the epoch so far.
      state: The run itself: model, optimizers, record.
    """

    step: int
    loop_steps: int
    epoch: int
    epochs: int
    steps_per_epoch: int
    images_per_second: float
    seconds: float
    row: Mapping[str, float] | None
    metrics: Mapping[str, float]
    state: TrainState


Action = Callable[[Moment], None]
When = Callable[[Moment], bool]


class _At:
    """An action that is called only when a condition holds."""

    def __init__(self, when: When, action: Action) -> None:
        self._when, self._action = when, action
        self.after_save = bool(getattr(action, "after_save", False))

    def __call__(self, moment: Moment) -> None:
        if self._when(moment):
            self._action(moment)

    def close(self) -> None:
        close([self._action])


def at(when: When, action: Action) -> Action:
    """Returns an action that is called only when `when` returns true."""
    return _At(when, action)


def every_epoch() -> When:
    """Returns whether an epoch has just ended and was evaluated."""
    return lambda moment: moment.row is not None


def every_steps(steps: int) -> When:
    """Returns whether the inner loop has reached or passed a multiple of `steps`."""
    if steps < 1:
        raise UsageError(f"steps is {steps}: it must be at least 1")
    return lambda m: m.step // steps > (m.step - m.loop_steps) // steps


def every_seconds(seconds: float) -> When:
    """Returns whether so many seconds of wall time have passed since it last did."""
    last = time.monotonic()

    def when(moment: Moment) -> bool:
        nonlocal last
        due = time.monotonic() - last >= seconds
        if due:
            last = time.monotonic()
        return due

    return when


def in_order(actions: Sequence[Action], save: Action | None) -> list[Action]:
    """Returns the actions with the saving among them, in the order of their calls."""
    last = [action for action in actions if getattr(action, "after_save", False)]
    first = [action for action in actions if action not in last]
    return [*first, *([save] if save else []), *last]


def close(actions: Sequence[Action]) -> None:
    """Lets actions that have a `close` clean up, however the run has ended."""
    for action in actions:
        ending = getattr(action, "close", None)
        if ending is not None:
            ending()
