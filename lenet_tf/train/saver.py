"""Saves a run while it trains, and resumes it.

    trainer.fit(batches, epochs=3, saver=Saver("runs/mine", seconds=60))

A checkpoint is saved at the end of every epoch. `checkpoints/` holds the latest ones,
to resume from, and `best/` the best epoch.
"""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.latest import LatestCheckpoints
from lenet_tf.checkpoint.storage import remove_unfinished
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.files import make_folder, os_errors_as
from lenet_tf.parallel.workers import is_chief
from lenet_tf.train.actions import (
    Moment,
    When,
    every_epoch,
    every_row,
    every_seconds,
    every_steps,
)
from lenet_tf.train.better import better_mode
from lenet_tf.train.state import TrainState

AUTO = "auto"
# The metric of the best row by default: the first of these that a run has.
_USUAL = ("accuracy", "loss")
# A metric may be added or dropped when a run is resumed.
_TOTALS = "metrics/totals/"
# Checkpoints before version 0.2 do not have this variable; it then starts at 0.
_SKIPPED = "loss_scale/skipped"


class Saver:
    """Saves a run while it trains: `fit(saver=...)`; make a new one for each `fit`.

    With several workers, all restore and only the chief writes.

    Args:
      directory: Folder of the run, for `checkpoints/` and `best/`.
      resume: Whether to go on from the newest complete checkpoint there.
      steps: Number of steps between two checkpoints. Each is saved when the inner loop
        that reaches a multiple of it has ended. None saves at the end of each epoch,
        and at each row of the history.
      seconds: Number of seconds between two checkpoints, in the same way.
      keep: Number of latest checkpoints to keep.
      best: Name of the metric whose best row of the history is kept. "auto" takes
        `val_accuracy` if the run has it, else `val_loss` if it has that, of the first
        set if there are several; None keeps none.
      mode: "max" or "min": which values of `best` are better. It must be given unless
        the name tells; see `lenet_tf.train.better_mode`.
      keep_best: Number of best checkpoints to keep.
      background: Whether training goes on while files are written. A failed write is
        then raised after the next inner loop.
    """

    def __init__(
        self,
        directory: pathlib.Path | str,
        *,
        resume: bool = True,
        steps: int | None = None,
        seconds: float | None = None,
        keep: int = 3,
        best: str | None = AUTO,
        mode: str | None = None,
        keep_best: int = 1,
        background: bool = False,
    ) -> None:
        self.directory, self._resume = pathlib.Path(directory), resume
        self._keep, self._best_metric, self._mode = keep, best, mode
        self._background, self._keep_best = background, keep_best
        if keep_best < 1:
            raise UsageError(f"keep_best is {keep_best}: give 1 or more, or best=None")
        self._due: list[When] = [every_epoch(), every_row()]
        if steps is not None:
            self._due.append(every_steps(steps))
        if seconds is not None:
            self._due.append(every_seconds(seconds))
        self._latest: LatestCheckpoints | None = None
        self._best: BestCheckpoints | None = None
        self._writes = True

    def start(
        self,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        metrics: Sequence[str],
        prefix: str = "val",
    ) -> str | None:
        """Restores the newest checkpoint, if there is one and `resume` is true.

        Args:
          state: State of the run, changed in place.
          strategy: Strategy in whose scope the state was made.
          metrics: Names of the metrics that each row of the history will have.
          prefix: Beginning of the names of the metrics of the first validation set.

        Returns:
          The path of the restored checkpoint, or None.

        Raises:
          UsageError: `best` is no metric of the run, or needs a `mode`.
          CheckpointError: No checkpoint is complete, the newest does not fit the state,
            or there is a run already and `resume` is false.
        """
        parts = state.parts()
        checkpoint = tf.train.Checkpoint(**parts)
        self._writes = is_chief(strategy)

        def snapshot() -> tf.train.Checkpoint:
            with strategy.scope():
                return tf.train.Checkpoint(**copy.deepcopy(parts))

        self._latest = LatestCheckpoints(
            checkpoint,
            self.directory / "checkpoints",
            self._keep,
            snapshot if self._background else None,
            writes=self._writes,
        )
        best = self._chosen_best(metrics, prefix)
        if not self._resume and self._latest.directory.exists():
            raise CheckpointError(
                f"{self.directory} holds a run already: let it resume, or choose "
                "another directory"
            )
        if self._writes:
            # Actions may write here before the first save.
            with os_errors_as(CheckpointError, f"{self.directory} cannot be written"):
                make_folder(self.directory)
            for directory in ("checkpoints", "best"):
                remove_unfinished(self.directory / directory)
            if best is not None:
                folder, keep = self.directory / "best", self._keep_best
                self._best = BestCheckpoints(checkpoint, folder, *best, keep=keep)
                self._best.clean()
        optional = (_TOTALS, _SKIPPED)
        restored = self._latest.restore(optional) if self._resume else None
        if restored is None:
            return None
        state.check_order()
        for key in (key for key in restored.missing if key.startswith(_TOTALS)):
            state.metrics.begin_late(_unescaped(key.removeprefix(_TOTALS)))
        if self._writes:
            logging.info("resumed from %s", restored.path)
        return restored.path

    def _chosen_best(
        self, metrics: Sequence[str], prefix: str
    ) -> tuple[str, str] | None:
        """Returns the metric of the best row, and which values are better."""
        best = self._best_metric
        if best == AUTO:
            usual = [f"{prefix}_{name}" for name in _USUAL]
            best = next((name for name in usual if name in metrics), None)
        if best is None:
            return None
        if best not in metrics:
            raise UsageError(
                f"best is {best!r}: choose one of {', '.join(metrics)}, or None"
            )
        return best, better_mode(best, self._mode)

    def __call__(self, moment: Moment) -> None:
        """Saves if a checkpoint is due; `fit` calls it."""
        assert self._latest is not None
        if not self._writes:
            return
        self._latest.poll()
        if moment.row is not None and self._best is not None:
            self._best.offer(moment.step, dict(moment.row))
        # Call all of them: every_seconds() counts anew from when it returns true.
        due = [when(moment) for when in self._due]
        if any(due):
            self._latest.save(moment.step)

    def save(self, step: int, row_due: bool = False) -> str:
        """Saves now, and waits until the files are complete.

        Args:
          step: Number of steps done.
          row_due: Whether an epoch ends at this step and has no row of history yet.

        Returns:
          The path of the checkpoint; other workers return "by the chief".
        """
        assert self._latest is not None
        if not self._writes:
            return "by the chief"
        path = self._latest.save(step, row_due)
        self._latest.wait()
        return path

    def newest(self) -> str:
        """Returns the path of the newest checkpoint, or "none yet"."""
        return (self._latest and self._latest.newest) or "none yet"

    def finish(self) -> None:
        """Waits until all files are written."""
        assert self._latest is not None
        self._latest.wait()


def check_saver(saver: object, actions: object) -> None:
    """Raises UsageError if they are not a saver, or None, and a list of actions."""
    if saver is not None and not isinstance(saver, Saver):
        raise UsageError(f"saver is {saver!r}: give lenet_tf.Saver(directory)")
    if not isinstance(actions, Sequence) or any(isinstance(a, Saver) for a in actions):
        raise UsageError(
            f"actions is {actions!r}: give a list of actions, and a saver as saver="
        )


def _unescaped(key: str) -> str:
    """Undoes TensorFlow's escapes in a part of a checkpoint's key."""
    return key.replace(".S", "/").replace("..", ".")
