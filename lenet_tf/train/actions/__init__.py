"""Actions: functions that the trainer calls after each inner loop.

    trainer.fit(batches, epochs=3, actions=[at(every_epoch(), print_line)])

An action is a function of a `Moment`. *What* it does and *when* it runs are separate:
`at(when, action)` joins the two. Actions are called in turn before the run is saved, so
that what they change is in the checkpoint. An action whose attribute `after_save` is
true, such as one that reports, is called after the run is saved.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from lenet_tf.errors import UsageError
from lenet_tf.train.state import TrainState


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """Raised by an action to end the run early: it is saved, and `fit` returns.

        raise Enough("the validation loss has not fallen for 5 epochs")

    The other actions are still called. The run remembers its end: `fit` goes on only
    when it is asked for more epochs.
    """


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a run stands after an inner loop.

    Attributes:
      step: Number of global batches trained on so far.
      loop_steps: Number of them in the inner loop that has just ended.
      epoch: Epoch of the last batch, counted from 1.
      epochs: Total number of epochs of the run.
      steps_per_epoch: Number of batches in an epoch.
      images_per_second: Examples per second in this epoch's inner loops.
      seconds: Wall-clock seconds in `fit`, earlier processes of the run included.
      row: Row of the history if an epoch has just ended, else None.
      metrics: Training metrics of the epoch so far, name -> mean.
      state: State of the run: model, optimizers, record.
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
    """Returns a condition: an epoch has just ended and was evaluated."""
    return lambda moment: moment.row is not None


def every_steps(steps: int) -> When:
    """Returns a condition: the inner loop has reached or passed a multiple of `steps`.

    Raises:
      UsageError: `steps` is below 1.
    """
    if steps < 1:
        raise UsageError(f"steps is {steps}: it must be at least 1")
    return lambda m: m.step // steps > (m.step - m.loop_steps) // steps


def every_seconds(seconds: float) -> When:
    """Returns a condition: `seconds` have passed since now, or since it last held."""
    last = time.monotonic()

    def when(moment: Moment) -> bool:
        nonlocal last
        due = time.monotonic() - last >= seconds
        if due:
            last = time.monotonic()
        return due

    return when


def in_order(actions: Sequence[Action], save: Action | None) -> list[Action]:
    """Returns the actions and `save` in the order in which they are to be called."""
    last = [action for action in actions if getattr(action, "after_save", False)]
    first = [action for action in actions if action not in last]
    return [*first, *([save] if save else []), *last]


def close(actions: Sequence[Action]) -> None:
    """Calls `close` of the actions that have it; to be done however a run ends."""
    for action in actions:
        ending = getattr(action, "close", None)
        if ending is not None:
            ending()
