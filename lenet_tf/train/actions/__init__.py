"""What happens between inner loops.

    trainer.fit(batches, epochs=3, actions=[at(every_epoch(), print_line)])

An action is a callable on a `Moment`; *what* it does and *when* it runs are separate:
`at(when, action)` joins the two.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from lenet_tf.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a run stands after an inner loop.

    Attributes:
      step: global batches trained on so far.
      loop_steps: how many of them in the inner loop that has just ended.
      epoch: the epoch of the last of them, from 1.
      epochs: how many the run is to have.
      steps_per_epoch: batches in an epoch.
      images_per_second: examples a second in this run's training loops.
      seconds: spent in training loops, over all the runs that led here.
      row: the epoch's history row when it has just ended and was evaluated, else None.
      metrics: training metrics of the epoch so far.
      trainer: the `Trainer`, to save or to look at.
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
    trainer: Any


Action = Callable[[Moment], None]
When = Callable[[Moment], bool]


def at(when: When, action: Action) -> Action:
    """Returns an action that runs only when `when` says so."""

    def guarded(moment: Moment) -> None:
        if when(moment):
            action(moment)

    return guarded


def every_epoch() -> When:
    """Says yes when an epoch has ended and was evaluated."""
    return lambda moment: moment.row is not None


def every_steps(steps: int) -> When:
    """Says yes when the inner loop has reached or passed a multiple of `steps`."""
    if steps < 1:
        raise UsageError(f"steps is {steps}: it must be at least 1")
    return lambda m: m.step // steps > (m.step - m.loop_steps) // steps


def every_seconds(seconds: float) -> When:
    """Says yes when so many seconds of wall time have passed since the last yes."""
    last = time.monotonic()

    def when(moment: Moment) -> bool:
        nonlocal last
        due = time.monotonic() - last >= seconds
        if due:
            last = time.monotonic()
        return due

    return when
