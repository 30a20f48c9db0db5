"""The latest checkpoints of a run, to resume from; the best ones are in best.py.

    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)
    latest = LatestCheckpoints(checkpoint, "runs/mine/checkpoints", keep=3)
    restored = latest.restore()              # None when nothing was saved yet
    latest.save(int(step))

Both are ordinary TensorFlow checkpoints, and neither class deletes the other's.
Everything needed to resume a run is in one `tf.train.Checkpoint`: weights, optimizer
slots, sums of metrics, the step, and Python values (`RunRecord`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

import tensorflow as tf

from lenet_tf.checkpoint.restore import Restored, restore_checkpoint
from lenet_tf.checkpoint.storage import delete, list_checkpoints, newest_whole, write
from lenet_tf.errors import CheckpointError
from lenet_tf.files import write_text


class LatestCheckpoints:
    """Keeps the newest checkpoints of a run.

    Args:
      checkpoint: Objects to save and restore.
      directory: Folder of the checkpoints, made at the first save.
      keep: Number of checkpoints to keep, at least 1.
      snapshot: Function that copies the current state and returns a
        `tf.train.Checkpoint` of the copy, for saving in the background. Without it,
        `save` returns when the files are complete.
      writes: Whether this process may write and delete files. Of several workers only
        the chief may; the others restore.

    Attributes:
      newest: Prefix of the checkpoint that was saved or restored last, or None.

    Raises:
      CheckpointError: `keep` is below 1.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: pathlib.Path | str,
        keep: int = 3,
        snapshot: Callable[[], tf.train.Checkpoint] | None = None,
        *,
        writes: bool = True,
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"keep is {keep}: keep at least one checkpoint")
        self._checkpoint, self.directory = checkpoint, pathlib.Path(directory)
        self._keep, self._snapshot, self._writes = keep, snapshot, writes
        self._writer = ThreadPoolExecutor(1) if snapshot else None
        self._pending: Future[None] | None = None
        self.newest: str | None = None
        self._kept: list[str] = []

    def save(self, step: int, row_due: bool = False) -> str:
        """Writes a checkpoint, then deletes the oldest ones beyond `keep`.

        Args:
          step: Step of the current state, which names the checkpoint. The step that was
            saved or restored last is not saved again.
          row_due: Whether an epoch ends at this step and its row of the history is
            still missing. The checkpoint is then named `pending-...`, so that the later
            one with the row does not overwrite it.

        Returns:
          Prefix of the newest checkpoint.

        Raises:
          CheckpointError: The checkpoint cannot be written, an old one cannot be
            deleted, or this process may not write.
        """
        if not self._writes:
            raise CheckpointError("this worker only restores: the chief saves")
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
        """Raises the error of a save in the background, if it has failed by now.

        Raises:
          CheckpointError: The save has failed.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the save in the background is complete.

        Raises:
          CheckpointError: The save has failed.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except BaseException:
            self.newest = self._kept[-1] if self._kept else None
            raise

    def restore(self, optional: Collection[str] = ()) -> Restored | None:
        """Restores the newest whole checkpoint; the variables must exist.

        Args:
          optional: Prefixes of keys that only one side may have; see
            `restore_checkpoint`.

        Returns:
          What was restored, or None when nothing was saved yet.

        Raises:
          CheckpointError: No checkpoint is whole, or the newest whole one does not fit.
        """
        path = newest_whole(self.directory)
        if path is None:
            return None
        restored = restore_checkpoint(self._checkpoint, path, optional)
        if self._writes:
            found = list_checkpoints(self.directory)
            newer = found.index(path)  # number of damaged ones, deleted first
            self._kept = [*found[:newer], *reversed(found[newer:])]
            self._rotate()  # A killed run may not have done it.
        self.newest = path
        return restored

    def _write(self, checkpoint: tf.train.Checkpoint, path: str) -> None:
        write(checkpoint, path)
        self._kept = [*(kept for kept in self._kept if kept != path), path]
        self._rotate()

    def _rotate(self) -> None:
        """Writes the state file `checkpoint`, then deletes the oldest checkpoints.

        The state file is for `tf.train.latest_checkpoint`. Since the new checkpoint is
        already on the disk and deletions come last, it names only what exists.
        """
        dropped, self._kept = self._kept[: -self._keep], self._kept[-self._keep :]
        names = [pathlib.Path(path).name for path in self._kept]
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        write_text(self.directory / "checkpoint", "\n".join(lines) + "\n")
        for old in dropped:
            delete(old)
