"""Prints a line per row of the history, and on a terminal shows a progress bar.

trainer.fit(batches, epochs=3, actions=[Progress()])
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

import tqdm

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import Moment
from lenet_tf.train.state import TrainState


class Progress:
    """Prints a line for each row, and on a terminal shows a bar of the epoch's steps.

    Args:
      write: Function that is called with each line.
      metrics: Names of the metrics to show; None shows all.
    """

    after_save = True

    def __init__(
        self,
        write: Callable[[str], None] = print,
        metrics: Sequence[str] | None = None,
    ) -> None:
        self._write, self._metrics = write, metrics
        self._terminal = sys.stderr.isatty()
        self._bar: tqdm.tqdm | None = None

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Raises UsageError if the run does not have a metric to show."""
        for name in self._metrics or ():
            if name not in metrics:
                raise UsageError(
                    f"there is no metric {name!r} to show: choose among "
                    f"{', '.join(metrics)}"
                )

    def __call__(self, moment: Moment) -> None:
        """Moves the bar; at a row removes it and writes the line."""
        if self._metrics is not None:
            shown = {k: v for k, v in moment.metrics.items() if k in self._metrics}
            row = moment.row and {
                k: v for k, v in moment.row.items() if k in self._metrics
            }
            moment = dataclasses.replace(moment, metrics=shown, row=row)
        if self._terminal:
            self._move_bar(moment)
        if moment.row is not None:
            self._write(epoch_line(moment))

    def _move_bar(self, moment: Moment) -> None:
        done = moment.step - (moment.epoch - 1) * moment.steps_per_epoch
        if self._bar is None:
            self._bar = tqdm.tqdm(
                initial=done - moment.loop_steps,
                total=moment.steps_per_epoch,
                desc=f"epoch {moment.epoch}/{moment.epochs}",
                unit="step",
                leave=False,
            )
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix_str(
            ", ".join(f"{key} {_short(value)}" for key, value in moment.metrics.items())
        )
        if moment.row is not None:
            self.close()

    def close(self) -> None:
        """Removes the bar, also when a run stops in the middle of an epoch."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(moment: Moment) -> str:
    """Returns a row as a line: metrics, examples per second, remaining time."""
    assert moment.row is not None
    figures = [
        f"{key} {value:.2%}" if key.endswith("accuracy") else f"{key} {_short(value)}"
        for key, value in moment.row.items()
        if key not in ("epoch", "step")
    ]
    left = (moment.steps - moment.step) * moment.seconds / moment.step
    at_epoch_end = moment.step % moment.steps_per_epoch == 0
    minutes, seconds = divmod(round(left), 60)
    return "  ".join(
        [
            f"epoch {moment.epoch}/{moment.epochs}"
            if at_epoch_end
            else f"step {moment.step}/{moment.steps}",
            *figures,
            f"{moment.examples_per_second:,.0f} examples/s",
            f"ETA {minutes}:{seconds:02d}",
        ]
    )


def _short(value: float) -> str:
    """Returns four decimals, or three digits of a number below 0.001."""
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
