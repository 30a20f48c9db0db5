"""When a run is saved, where, and from where it goes on.

    trainer.fit(batches, epochs=3, saver=Saver("runs/mine", seconds=60))

The end of an epoch is always saved. `checkpoints/` holds the latest, to resume from,
and `best/` the best epoch.
"""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.latest import LatestCheckpoints
from lenet_tf.checkpoint.storage import remove_unfinished
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.parallel.workers import is_chief
from lenet_tf.train.actions import Moment, When, every_epoch, every_seconds, every_steps


class Saver:
    """Saves a run as it trains; one saver serves one `fit`.

    Of several workers all restore, and only the chief writes.

    Args:
      workdir: gets `checkpoints/` and `best/`.
      resume: whether to go on from the newest whole checkpoint there.
      steps: save at the first loop end in each so many steps.
      seconds: save at the first loop end after so many seconds.
      keep: how many of the latest checkpoints to keep.
      best: the metric whose best epoch is kept; None keeps none. It is better when
        higher, a name that ends in `loss` when lower. A run without it keeps none.
      background: whether training goes on while files are written. A failure is raised
        at the next loop end.
    """

    def __init__(
        self,
        workdir: pathlib.Path | str,
        *,
        resume: bool = True,
        steps: int | None = None,
        seconds: float | None = None,
        keep: int = 3,
        best: str | None = "val_accuracy",
        background: bool = False,
    ) -> None:
        self.workdir, self._resume = pathlib.Path(workdir), resume
        self._keep, self._best_metric, self._background = keep, best, background
        self._due: list[When] = [every_epoch()]
        if steps is not None:
            self._due.append(every_steps(steps))
        if seconds is not None:
            self._due.append(every_seconds(seconds))
        self._latest: LatestCheckpoints | None = None
        self._best: BestCheckpoints | None = None
        self._writes = True

    def start(
        self, parts: dict[str, Any], strategy: tf.distribute.Strategy, validated: bool
    ) -> str | None:
        """Restores the newest checkpoint, if there is one and it is wanted.

        Args:
          parts: name -> what a run is made of, all trackable.
          strategy: in whose scope the parts were made.
          validated: whether epochs will have `val_` metrics.

        Returns:
          The path of what was restored.

        Raises:
          CheckpointError: none is whole, it does not fit, or it is not to be resumed.
        """
        checkpoint = tf.train.Checkpoint(**parts)
        self._writes = is_chief(strategy)
        if self._writes:
            for directory in ("checkpoints", "best"):
                remove_unfinished(self.workdir / directory)

        def snapshot() -> tf.train.Checkpoint:
            with strategy.scope():
                return tf.train.Checkpoint(**copy.deepcopy(parts))

        self._latest = LatestCheckpoints(
            checkpoint,
            self.workdir / "checkpoints",
            self._keep,
            snapshot if self._background else None,
        )
        measured = validated or "val_" not in (self._best_metric or "")
        if self._writes and self._best_metric and measured:
            mode = "min" if self._best_metric.endswith("loss") else "max"
            self._best = BestCheckpoints(
                checkpoint, self.workdir / "best", self._best_metric, mode
            )
            self._best.clean()
        if not self._resume:
            if self._latest.directory.exists():
                raise CheckpointError(
                    f"workdir {self.workdir} holds a run already: resume it, or choose "
                    "another --workdir"
                )
            return None
        path = self._latest.restore()
        if path is not None and self._writes:
            logging.info("resumed from %s", path)
        return path

    def __call__(self, moment: Moment) -> None:
        """Saves when it is due; an action."""
        assert self._latest is not None
        if not self._writes:
            return
        self._latest.poll()
        if moment.row is not None and self._best is not None:
            if self._best.metric not in moment.row:
                raise UsageError(
                    f"best is {self._best.metric!r}: choose one of "
                    f"{', '.join(moment.row)}"
                )
            self._best.offer(moment.step, dict(moment.row))
        # Every one is asked: one that counts seconds starts anew when it says yes.
        if any([due(moment) for due in self._due]):
            self._latest.save(moment.step)

    def save(self, step: int, row_due: bool = False) -> str:
        """Saves now, and returns the path when the files are complete.

        Args:
          step: at which the run is.
          row_due: whether an epoch has ended here and has no row yet.
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
