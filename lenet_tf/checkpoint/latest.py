"""The latest checkpoints of a run, for resuming; the best are in best.py.

    latest = LatestCheckpoints(checkpoint, workdir / "checkpoints", keep=3)
    path = latest.restore()               # None when there is nothing to restore
    latest.save(step)

Both are ordinary TensorFlow checkpoints, and neither evicts the other's. Everything
that a run is made of is in one `tf.train.Checkpoint`: weights, slots, metric
accumulators, the step, and what Python remembers (`RunRecord`), so one file is the
whole truth and nothing has to be brought into line with it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import tensorflow as tf

from lenet_tf.checkpoint.restore import restore_checkpoint
from lenet_tf.checkpoint.storage import delete, newest_whole, saved, write
from lenet_tf.errors import CheckpointError
from lenet_tf.files import write_text


class LatestCheckpoints:
    """Keeps the newest checkpoints of a run, to resume from.

    Args:
      checkpoint: what is saved and restored.
      directory: made at the first save.
      keep: how many to keep.
      snapshot: for saving in the background: a function that copies the present state
        and returns a `tf.train.Checkpoint` of the copy. Without it, `save` returns when
        the files are complete.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: pathlib.Path,
        keep: int = 3,
        snapshot: Callable[[], tf.train.Checkpoint] | None = None,
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"keep is {keep}: keep at least one checkpoint")
        self._checkpoint, self.directory, self._keep = checkpoint, directory, keep
        self._snapshot = snapshot
        self._writer = ThreadPoolExecutor(1) if snapshot else None
        self._pending: Future[None] | None = None
        self.newest: str | None = None
        self._kept: list[str] = []

    def save(self, step: int, row_due: bool = False) -> str:
        """Writes a checkpoint, then drops the oldest; a kill leaves the older whole.

        Args:
          step: in its name. A step that was just saved or restored is not saved again.
          row_due: whether the epoch that ends at this step has no row yet. Such a
            checkpoint gets another name: the one with the row is not written over it.

        Returns:
          The path prefix of the newest checkpoint.

        Raises:
          CheckpointError: it cannot be written; the one before is whole.
        """
        path = str(self.directory / f"{'pending' if row_due else 'step'}-{step}")
        if path == self.newest:
            return path
        self.wait()
        if self._writer is None or self._snapshot is None:
            self._write(self._checkpoint, path)
        else:
            self._pending = self._writer.submit(self._write, self._snapshot(), path)
        self.newest = path
        return path

    def poll(self) -> None:
        """Raises what saving in the background has run into; does not wait for it."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until what is being saved is complete, and raises its failure."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(self) -> str | None:
        """Restores the newest whole checkpoint; the variables must exist already.

        Returns:
          Its path prefix, or None when there is none.

        Raises:
          CheckpointError: none is whole, or it does not hold exactly the variables of
            this program.
        """
        path = newest_whole(self.directory)
        if path is None:
            return None
        restore_checkpoint(self._checkpoint, path)
        found = saved(self.directory)
        newer = found.index(path)  # and damaged: they are the first to be dropped
        self._kept = [*found[:newer], *reversed(found[newer:])]
        self._rotate()  # which a killed run may not have come to
        self.newest = path
        return path

    def _write(self, checkpoint: tf.train.Checkpoint, path: str) -> None:
        write(checkpoint, path)
        self._kept = [*(kept for kept in self._kept if kept != path), path]
        self._rotate()

    def _rotate(self) -> None:
        """Drops the oldest, and writes the state file, for tf.train.latest_checkpoint.

        The deletions come last, so that the file names nothing that is not there.
        """
        dropped, self._kept = self._kept[: -self._keep], self._kept[-self._keep :]
        names = [pathlib.Path(path).name for path in self._kept]
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        write_text(self.directory / "checkpoint", "\n".join(lines) + "\n")
        for old in dropped:
            delete(old)
