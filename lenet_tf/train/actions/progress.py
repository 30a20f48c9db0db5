"""Prints a line for each row of the history, and shows a progress bar.

    trainer.fit(batches, epochs=3, actions=[Progress(metrics=["loss"])])

In a terminal the bar is text, and in a notebook a widget, which needs the package
ipywidgets. Elsewhere, as when stderr goes into a file, there is no bar. Where there is
one, `fit` shows progress by default.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from lenet_tf.errors import UsageError
from lenet_tf.signals import in_notebook
from lenet_tf.train.actions import Action, Moment, without_when
from lenet_tf.train.state import TrainState


class Progress:
    """Action that prints a line for each row, and shows a bar of the epoch's steps.

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
        self._shows_bar = _can_show_bar()
        self._bar: tqdm | None = None
        self._remove_bar: Callable[[], object] = lambda: None

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
        if self._shows_bar:
            self._move_bar(moment)
        if moment.row is not None:
            self._write(epoch_line(moment))

    def _move_bar(self, moment: Moment) -> None:
        done = moment.step - (moment.epoch - 1) * moment.steps_per_epoch
        if self._bar is None:
            self._bar, self._remove_bar = _show_bar(
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
            self._remove_bar()
            self._bar = None


def with_progress(
    actions: Sequence[Action], wanted: bool | None, chief: bool
) -> Sequence[Action]:
    """Returns the actions of a run, with a `Progress` added if it is wanted.

    Args:
      actions: Actions of the run. If there is a `Progress` among them, none is added.
      wanted: Whether to show progress; None shows it in a terminal and in a notebook.
      chief: Whether this worker is the one that reports.
    """
    if wanted is None:
        wanted = _can_show_bar()
    given = any(isinstance(action, Progress) for action in without_when(actions))
    if not wanted or not chief or given:
        return actions
    # From a terminal, stdout may go into a file, which is not to get these lines.
    to_stderr = _can_show_bar() and not in_notebook()
    write = functools.partial(print, file=sys.stderr) if to_stderr else print
    return [*actions, Progress(write)]


def _can_show_bar() -> bool:
    """Whether a bar can be shown: in a notebook, or on stderr if it is a terminal."""
    try:
        return in_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return False


def _show_bar(**options: object) -> tuple[tqdm, Callable[[], object]]:
    """Returns a new bar, and a function that removes it."""
    if not issubclass(tqdm, tqdm_notebook):
        bar = tqdm(**options)
        return bar, bar.close
    from IPython.display import display

    # When a widget is closed, the notebook's file keeps its first text, "0%". An empty
    # display takes the place of both.
    bar = tqdm(**options, display=False)
    shown = display(bar.container, display_id=True)

    def remove() -> None:
        bar.close()
        bar.container.close()
        shown.update({}, raw=True)

    return bar, remove


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
