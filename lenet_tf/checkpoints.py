"""Checkpoint managers: the latest for resuming, the best by a chosen metric.

    latest = LatestCheckpoints(checkpoint, workdir / "checkpoints", keep=3)
    latest.save(step)
    step = latest.restore()               # None when there is nothing to restore

Both write ordinary TensorFlow checkpoints, and neither evicts the other's. Everything
that a run is made of is in one `tf.train.Checkpoint`: weights, slots, metric
accumulators, the step, and what Python remembers (`RunRecord`), so one file is the
whole truth and nothing has to be brought into line with it.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lenet_tf.errors import CheckpointError
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
    """

    def __init__(
        self, checkpoint: tf.train.Checkpoint, directory: pathlib.Path, keep: int = 3
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"keep is {keep}: keep at least one checkpoint")
        self._checkpoint, self.directory = checkpoint, directory
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(directory), max_to_keep=keep, checkpoint_name="step"
        )
        self.saved_step: int | None = None

    def save(self, step: int) -> str:
        """Writes a checkpoint, then drops the oldest; a kill leaves the older whole.

        Args:
          step: in its name. A step that was just saved or restored is not saved again.

        Returns:
          The path prefix of the newest checkpoint.
        """
        if step != self.saved_step:
            self._manager.save(checkpoint_number=step)
            self.saved_step = step
        return self._manager.latest_checkpoint

    def restore(self) -> str | None:
        """Restores the newest checkpoint; the variables must exist already.

        Returns:
          Its path prefix, or None when there is none.

        Raises:
          CheckpointError: it does not hold exactly the variables of this program.
        """
        path = self._manager.latest_checkpoint
        if path is not None:
            restore(self._checkpoint, path)
            self.saved_step = int(path.rsplit("-", 1)[1])
        return path


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
        _ = checkpoint.save_counter  # made now, so that it is in what is written here
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
        """
        value = metrics[self.metric]
        old = [entry for entry in self.entries() if entry["step"] != step]
        new = [*old, {"step": step, "value": value}]
        new.sort(key=lambda entry: (-self._sign * entry["value"], entry["step"]))
        kept = new[: self._keep]
        if math.isnan(value) or all(entry["step"] != step for entry in kept):
            return False
        self.directory.mkdir(parents=True, exist_ok=True)
        self._checkpoint.write(self._prefix(step))
        # The list is written between saving the new and deleting the old: it never
        # names what is not there.
        write_json(self._record, {"metric": self.metric, "checkpoints": kept})
        for entry in new[self._keep :]:
            name = pathlib.Path(self._prefix(int(entry["step"]))).name
            for file in self.directory.glob(f"{name}.*"):
                file.unlink()
        return True

    def _prefix(self, step: int) -> str:
        return str(self.directory / f"step-{step}")


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores every variable of a checkpoint.

    Raises:
      CheckpointError: it lacks a variable of the program, or the program one of its.
    """
    _matched(lambda: checkpoint.restore(path), path, "assert_consumed")


def restore_model(model: tf.Module, path: str) -> None:
    """Restores the weights of a model alone, for evaluation or export.

    Raises:
      CheckpointError: the checkpoint lacks one of its variables.
    """
    checkpoint = tf.train.Checkpoint(model=model)
    _matched(lambda: checkpoint.read(path), path, "assert_existing_objects_matched")


def _matched(restore: Callable[[], Any], path: str, assertion: str) -> None:
    status = None
    try:
        status = restore()
        getattr(status, assertion)()
    except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit this program: {reason}") from error
    finally:
        if status is not None:
            status.expect_partial()  # what is missing has been said, once


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
        path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    else:
        raise CheckpointError(f"which is {which!r}: choose 'latest' or 'best'")
    if path is None:
        raise CheckpointError(
            f"workdir {workdir} has no {which} checkpoint: train first"
        )
    return path
