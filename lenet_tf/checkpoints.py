"""Checkpoint managers: the latest for resuming, the best by a chosen metric.

    latest = LatestCheckpoints(checkpoint, workdir / "checkpoints", keep=3)
    path = latest.restore()               # None when there is nothing to restore
    latest.save(step)

Both write ordinary TensorFlow checkpoints, and neither evicts the other's. Everything
that a run is made of is in one `tf.train.Checkpoint`: weights, slots, metric
accumulators, the step, and what Python remembers (`RunRecord`), so one file is the
whole truth and nothing has to be brought into line with it.
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from lenet_tf.errors import CheckpointError
from lenet_tf.restore import newest_whole, restore, saved_steps
from lenet_tf.workdir import read_json, write_json


class RunRecord(tf.train.experimental.PythonState):
    """What a run remembers outside its tensors, saved as JSON in the checkpoint.

    Attributes:
      rows: one dict an epoch that has ended: epoch, step, and its metrics.
      seconds: spent in training loops so far, over all the runs that led here.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def serialize(self) -> str:
        """Returns the JSON text that goes into the checkpoint."""
        return json.dumps({"rows": self.rows, "seconds": self.seconds})

    def deserialize(self, string_value: bytes) -> None:
        """Takes back what `serialize` gave."""
        fields: dict[str, Any] = json.loads(string_value)
        self.rows, self.seconds = fields["rows"], fields["seconds"]


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
        self.saved_step: int | None = None
        self._kept: list[str] = []

    def save(self, step: int) -> str:
        """Writes a checkpoint, then drops the oldest; a kill leaves the older whole.

        Args:
          step: in its name. A step that was just saved or restored is not saved again.

        Returns:
          The path prefix of the newest checkpoint.

        Raises:
          CheckpointError: it cannot be written; the one before is whole.
        """
        path = str(self.directory / f"step-{step}")
        if step == self.saved_step:
            return path
        self.wait()
        self.saved_step = step
        if self._writer is None or self._snapshot is None:
            self._write(self._checkpoint, path)
        else:
            self._pending = self._writer.submit(self._write, self._snapshot(), path)
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
        restore(self._checkpoint, path)
        self.saved_step = step = int(path.rsplit("-", 1)[1])
        found = saved_steps(self.directory).items()
        self._kept = [p for s, p in reversed(found) if s <= step]
        return path

    def _write(self, checkpoint: tf.train.Checkpoint, path: str) -> None:
        write(checkpoint, path)
        self._kept = [*(kept for kept in self._kept if kept != path), path]
        dropped, self._kept = self._kept[: -self._keep], self._kept[-self._keep :]
        # The state file is for TensorFlow's own tools; it is written by rename.
        tf.compat.v1.train.update_checkpoint_state(
            str(self.directory), path, self._kept
        )
        for old in dropped:
            _delete(old)


class BestCheckpoints:
    """Keeps the checkpoints with the best values of a metric.

    Args:
      checkpoint: what is saved.
      directory: made at the first save; `best.json` in it lists the values.
      metric: name of the metric, such as "val_accuracy".
      mode: "max" or "min", which values are better.
      keep: how many to keep.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: pathlib.Path,
        metric: str,
        mode: str = "max",
        keep: int = 1,
    ) -> None:
        if mode not in ("max", "min") or keep < 1:
            raise CheckpointError(
                f"mode is {mode!r}, keep is {keep}: give 'max' or 'min', and 1 or more"
            )
        self._checkpoint, self.directory = checkpoint, directory
        self.metric, self._sign, self._keep = metric, 1 if mode == "max" else -1, keep

    @property
    def _record(self) -> pathlib.Path:
        return self.directory / "best.json"

    def entries(self) -> list[dict[str, float]]:
        """Returns `step` and value of what is kept, best first; of equals the older."""
        if not self._record.exists():
            return []
        return list(read_json(self._record)["checkpoints"])

    def path(self) -> str | None:
        """Returns the path prefix of the best checkpoint, None when there is none."""
        entries = self.entries()
        return self._prefix(int(entries[0]["step"])) if entries else None

    def offer(self, step: int, metrics: dict[str, float]) -> bool:
        """Saves the present state if it is among the best; a NaN never is.

        Returns:
          Whether it was saved.

        Raises:
          CheckpointError: it cannot be written; those before are whole.
        """
        value = metrics[self.metric]
        old = [entry for entry in self.entries() if entry["step"] != step]
        new = [*old, {"step": step, "value": value}]
        new.sort(key=lambda entry: (-self._sign * entry["value"], entry["step"]))
        kept = new[: self._keep]
        if math.isnan(value) or all(entry["step"] != step for entry in kept):
            return False
        write(self._checkpoint, self._prefix(step))
        # The list is written between saving the new and deleting the old: it never
        # names what is not there.
        write_json(self._record, {"metric": self.metric, "checkpoints": kept})
        for entry in new[self._keep :]:
            _delete(self._prefix(int(entry["step"])))
        return True

    def _prefix(self, step: int) -> str:
        return str(self.directory / f"step-{step}")


def write(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Writes a checkpoint whole, its index last, or not at all.

    Raises:
      CheckpointError: it cannot be written, as when the disk is full.
    """
    directory = pathlib.Path(path).parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _ = checkpoint.save_counter  # made now, so that every file has it
        checkpoint.write(path)
    except (tf.errors.OpError, OSError) as error:
        _delete(path)
        raise CheckpointError(
            f"{path} cannot be saved, the one before it is whole: "
            f"{str(error).splitlines()[0]}"
        ) from error


def find(workdir: pathlib.Path, which: str = "latest") -> str:
    """Finds a checkpoint of a run.

    Args:
      workdir: of the run.
      which: "latest" or "best".

    Returns:
      Its path prefix.

    Raises:
      CheckpointError: there is none.
    """
    if which == "best":
        path = BestCheckpoints(tf.train.Checkpoint(), workdir / "best", "").path()
    elif which == "latest":
        path = newest_whole(workdir / "checkpoints")
    else:
        raise CheckpointError(f"which is {which!r}: choose 'latest' or 'best'")
    if path is None:
        raise CheckpointError(f"{workdir} has no {which} checkpoint: train first")
    return path


def _delete(path: str) -> None:
    """Deletes the files of a checkpoint, half-written ones too, the index first."""
    prefix = pathlib.Path(path)
    shutil.rmtree(f"{path}_temp", ignore_errors=True)
    for file in sorted(prefix.parent.glob(f"{prefix.name}.*"), reverse=True):
        file.unlink(missing_ok=True)
