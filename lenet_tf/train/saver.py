"""When a run is saved, where, and from where it goes on.

    trainer.fit(batches, epochs=3, saver=Saver("runs/mine", seconds=60))

The end of an epoch is always saved. `checkpoints/` holds the latest, to resume from,
and `best/` the best epoch.
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
from lenet_tf.parallel.workers import is_chief
from lenet_tf.train.actions import Moment, When, every_epoch, every_seconds, every_steps
from lenet_tf.train.state import TrainState

AUTO = "auto"
# What `best` is by default: the first of these that a run has.
_USUAL = ("val_accuracy", "val_loss")
# How a metric's name ends -> which of its values are better.
_MODES = {"accuracy": "max", "loss": "min", "error": "min"}
# A metric may be added or dropped when a run goes on.
_TOTALS = "metrics/totals/"
# Checkpoints before version 0.2 do not have it; it is then 0.
_SKIPPED = "loss_scale/skipped"


class Saver:
    """Saves a run as it trains; one saver serves one `fit`.

    Of several workers all restore, and only the chief writes.

    Args:
      directory: Folder of the run; gets `checkpoints/` and `best/`.
      resume: Whether to go on from the newest whole checkpoint there.
      steps: Number of steps between two checkpoints: saved is at the first loop end
        after each multiple. None saves by epochs only.
      seconds: Seconds between two checkpoints, likewise.
      keep: Number of latest checkpoints to keep.
      best: Name of the metric whose best epoch is kept. "auto" takes `val_accuracy`,
        or else `val_loss`, of a run that has one; None keeps none.
      mode: "max" or "min": which values of `best` are better. It must be given unless
        the name ends in accuracy, loss or error.
      background: Whether training goes on while files are written. A failure is raised
        at the next loop end.
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
        background: bool = False,
    ) -> None:
        self.directory, self._resume = pathlib.Path(directory), resume
        self._keep, self._best_metric, self._mode = keep, best, mode
        self._background = background
        self._due: list[When] = [every_epoch()]
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
    ) -> str | None:
        """Restores the newest checkpoint, if there is one and it is wanted.

        Args:
          state: What the run is made of.
          strategy: In whose scope it was made.
          metrics: Names of the metrics that each epoch's row will have.

        Returns:
          The path of what was restored.

        Raises:
          UsageError: `best` is no metric of the run, or needs a `mode`.
          CheckpointError: No checkpoint is whole, the newest does not fit, or there is
            a run that is not to be resumed.
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
        best = self._chosen_best(metrics)
        if not self._resume and self._latest.directory.exists():
            raise CheckpointError(
                f"{self.directory} holds a run already: let it resume, or choose "
                "another directory"
            )
        if self._writes:
            for directory in ("checkpoints", "best"):
                remove_unfinished(self.directory / directory)
            if best is not None:
                self._best = BestCheckpoints(checkpoint, self.directory / "best", *best)
                self._best.clean()
        optional = (_TOTALS, _SKIPPED)
        restored = self._latest.restore(optional) if self._resume else None
        if restored is None:
            return None
        for key in (key for key in restored.missing if key.startswith(_TOTALS)):
            state.metrics.begin_late(_unescaped(key.removeprefix(_TOTALS)))
        if self._writes:
            logging.info("resumed from %s", restored.path)
        return restored.path

    def _chosen_best(self, metrics: Sequence[str]) -> tuple[str, str] | None:
        """Returns the metric of the best epoch, and which values are better."""
        best = self._best_metric
        if best == AUTO:
            best = next((name for name in _USUAL if name in metrics), None)
        if best is None:
            return None
        if best not in metrics:
            raise UsageError(
                f"best is {best!r}: choose one of {', '.join(metrics)}, or None"
            )
        mode = self._mode or next(
            (mode for end, mode in _MODES.items() if best.endswith(end)), None
        )
        if mode not in ("max", "min"):
            raise UsageError(
                f"best is {best!r} and mode is {self._mode!r}: say mode='max' if "
                "higher values are better, or mode='min'"
            )
        return best, mode

    def __call__(self, moment: Moment) -> None:
        """Saves when it is due; an action."""
        assert self._latest is not None
        if not self._writes:
            return
        self._latest.poll()
        if moment.row is not None and self._best is not None:
            self._best.offer(moment.step, dict(moment.row))
        # Every one is asked: one that counts seconds starts anew when it says yes.
        due = [when(moment) for when in self._due]
        if any(due):
            self._latest.save(moment.step)

    def save(self, step: int, row_due: bool = False) -> str:
        """Saves now, and returns the path when the files are complete.

        Args:
          step: Number of steps done.
          row_due: Whether an epoch has ended here and has no row yet.
        """
        assert self._latest is not None
        if not self._writes:
            return "by the chief"
        path = self._latest.save(step, row_due)
        self._latest.wait()
        return path

    def newest(self) -> str:
        """Returns the path of the newest checkpoint, or says that there is none."""
        return (self._latest and self._latest.newest) or "none yet"

    def finish(self) -> None:
        """Waits until all is written."""
        assert self._latest is not None
        self._latest.wait()


def _unescaped(key: str) -> str:
    """Returns the name that TensorFlow has put into a checkpoint's key."""
    return key.replace(".S", "/").replace("..", ".")
