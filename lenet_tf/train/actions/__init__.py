"""Actions: functions that the trainer calls after each inner loop.

    trainer.fit(batches, epochs=3, actions=[at(every_epoch(), print_line)])

An action is a function of a `Moment`. `at(when, action)` adds a condition that says
*when* it is called. Actions are called in turn before the run is saved, so that their
changes are in the checkpoint. An action whose attribute `after_save` is true, such as
one that reports, is called after the run is saved.

An action that remembers something is resumed exactly if it has two more methods:
`state()` returns its memory as JSON values, and `restore(state)` restores it; see
`Stateful`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.train.record import ActionState
from lenet_tf.train.state import TrainState


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """Raised by an action to end the run early: it is saved, and `fit` returns.

        raise Enough("the validation loss has not fallen for 5 epochs")

    The other actions are still called. With several workers the run ends in all of them
    when it ends in one. The run remembers its end: `fit` goes on only when it is asked
    for more epochs or steps.
    """


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a run stands after an inner loop.

    Attributes:
      step: Number of global batches trained on so far.
      loop_steps: Number of steps in the inner loop that has just ended.
      steps: Total number of steps of the run.
      epoch: Epoch of the last batch, counted from 1.
      epochs: Total number of epochs of the run, the last of which may be cut short.
      steps_per_epoch: Number of batches in an epoch.
      examples_per_second: Speed of the inner loops since the last row.
      seconds: Wall-clock seconds in `fit`, including earlier processes of the run.
      row: Row of the history that was just made, such as that of an epoch; else None.
      metrics: Training metrics since the last row, name -> mean.
      state: State of the run: model, optimizers, record.
    """

    step: int
    loop_steps: int
    steps: int
    epoch: int
    epochs: int
    steps_per_epoch: int
    examples_per_second: float
    seconds: float
    row: Mapping[str, float] | None
    metrics: Mapping[str, float]
    state: TrainState


Action = Callable[[Moment], None]
When = Callable[[Moment], bool]


@runtime_checkable
class Stateful(Protocol):
    """An action whose memory is in the checkpoints; make a new one for each run."""

    def state(self) -> ActionState:
        """Returns what the action remembers, as JSON values by name."""

    def restore(self, state: ActionState) -> None:
        """Restores what `state` returned, when a run is resumed."""


@runtime_checkable
class Checked(Protocol):
    """An action that can check before the first step whether it will work."""

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Raises UsageError if it cannot work with this state and these metrics."""


class _At:
    """An action that is called only when a condition holds."""

    def __init__(self, when: When, action: Action) -> None:
        self._when, self.action = when, action
        self.after_save = bool(getattr(action, "after_save", False))

    def __call__(self, moment: Moment) -> None:
        due = self._when(moment)
        if not isinstance(due, bool | np.bool_):
            raise UsageError(
                f"the condition of at() returned {due!r}: give at(when, action) a "
                "function `when` that returns True or False"
            )
        if due:
            self.action(moment)

    def close(self) -> None:
        close([self.action])


def at(when: When, action: Action) -> Action:
    """Returns an action that is called only when `when` returns true."""
    return _At(when, action)


def every_epoch() -> When:
    """Returns a condition: an epoch has just ended."""
    return lambda moment: moment.step % moment.steps_per_epoch == 0


def every_row() -> When:
    """Returns a condition: a row was just added to the history."""
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


def in_order(
    actions: Sequence[Action], save: Action | None
) -> tuple[list[Action], list[Action]]:
    """Returns the actions to call before the save, and `save` followed by the rest."""
    late = [action for action in actions if getattr(action, "after_save", False)]
    early = [action for action in actions if action not in late]
    return early, [*([save] if save else []), *late]


def stateful(actions: Sequence[Action]) -> Iterator[tuple[str, Stateful]]:
    """Yields the name and the action of those that remember something.

    The name is that of the class. From its second action on, a number follows.
    """
    count: dict[str, int] = {}
    for action in without_when(actions):
        if isinstance(action, Stateful):
            name = type(action).__name__
            count[name] = count.get(name, 0) + 1
            yield f"{name} {count[name]}" if count[name] > 1 else name, action


def begin(actions: Sequence[Action], state: TrainState, metrics: Sequence[str]) -> None:
    """Checks actions, and in a resumed run restores what they remembered.

    Args:
      actions: Actions of the run. New ones have nothing to restore.
      state: State of the run, already restored.
      metrics: Names of the metrics that the rows of the history will have.

    Raises:
      UsageError: An action cannot work in this run.
      CheckpointError: An action cannot restore what the checkpoint holds for it.
    """
    for action in without_when(actions):
        if isinstance(action, type) or not callable(action):
            raise UsageError(
                f"actions have {action!r}: give functions of a Moment, or objects such "
                "as Progress()"
            )
        if isinstance(action, Checked):
            action.check(state, metrics)
    for name, remembering in stateful(actions):
        remembered = state.record.actions.get(name)
        if remembered is not None:
            try:
                remembering.restore(remembered)
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise CheckpointError(
                    f"{name} cannot go on from {remembered}, which it remembered in "
                    f"the checkpoint: {error!r}"
                ) from error


def without_when(actions: Sequence[Action]) -> Iterator[Action]:
    """Yields the actions, each without the conditions that `at` gave it."""
    for action in actions:
        while isinstance(action, _At):
            action = action.action
        yield action


def close(actions: Sequence[Action]) -> None:
    """Calls `close` of the actions that have it; needed however a run ends."""
    for action in actions:
        ending = getattr(action, "close", None)
        if ending is not None:
            ending()
