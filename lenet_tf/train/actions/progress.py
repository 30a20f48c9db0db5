"""Prints a line per epoch, and on a terminal shows a progress bar.

trainer.fit(batches, epochs=3, actions=[Progress()])
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import tqdm

from lenet_tf.train.actions import Moment


class Progress:
    """Prints a line after each epoch, and on a terminal shows a bar of its steps.

    Args:
      write: Function that is given the line.
    """

    after_save = True

    def __init__(self, write: Callable[[str], None] = print) -> None:
        self._write = write
        self._terminal = sys.stderr.isatty()
        self._bar: tqdm.tqdm | None = None

    def __call__(self, moment: Moment) -> None:
        """Moves the bar; at the end of an epoch removes it and writes the line."""
        if self._terminal:
            self._move_bar(moment)
        if moment.row is not None:
            self._write(epoch_line(moment))

    def _move_bar(self, moment: Moment) -> None:
        if self._bar is None:
            self._bar = tqdm.tqdm(
                total=moment.steps_per_epoch,
                desc=f"epoch {moment.epoch}/{moment.epochs}",
                unit="step",
                leave=False,
            )
        done = moment.step - (moment.epoch - 1) * moment.steps_per_epoch
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix_str(
            ", ".join(f"{key} {value:.4f}" for key, value in moment.metrics.items())
        )
        if moment.row is not None:
            self.close()

    def close(self) -> None:
        """Removes the bar, also when a run stops in the middle of an epoch."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(moment: Moment) -> str:
    """Returns an epoch's row as a line: metrics, images per second, remaining time."""
    assert moment.row is not None
    figures = [
        f"{key} {value:.2%}" if key.endswith("accuracy") else f"{key} {value:.4f}"
        for key, value in moment.row.items()
        if key not in ("epoch", "step")
    ]
    steps_left = moment.epochs * moment.steps_per_epoch - moment.step
    left = steps_left * moment.seconds / moment.step
    minutes, seconds = divmod(round(left), 60)
    return "  ".join(
        [
            f"epoch {moment.epoch}/{moment.epochs}",
            *figures,
            f"{moment.images_per_second:,.0f} images/s",
            f"ETA {minutes}:{seconds:02d}",
        ]
    )
