"""The best checkpoints of a run by a chosen metric.

best = BestCheckpoints(checkpoint, workdir / "best", "val_accuracy")
best.offer(step, {"val_accuracy": 0.985})    # saved if it is among the best
find(workdir, "best")                        # its path prefix
"""

from __future__ import annotations

import math
import operator
import pathlib

import tensorflow as tf

from lenet_tf.checkpoint.storage import damage, delete, saved, write
from lenet_tf.errors import CheckpointError
from lenet_tf.files import read_json, write_json


class BestCheckpoints:
    """Keeps the checkpoints with the best values of a metric.

    Args:
      checkpoint: what is saved.
      directory: made at the first save; `best.json` in it lists the values.
      metric: name of the metric, such as "val_accuracy"; "" to read only.
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
        """Returns `step` and value of what is kept, best first; of equals the older.

        Raises:
          UsageError: the list is damaged, or that of another metric.
        """
        if not self._record.exists():
            return []
        record = read_json(self._record)
        try:
            entries = [
                {"step": operator.index(entry["step"]), "value": +entry["value"]}
                for entry in record["checkpoints"]
            ]
        except (TypeError, KeyError) as error:
            raise CheckpointError(
                f"{self._record} is damaged: put it back, or remove {self.directory} "
                "to choose the best among the epochs to come"
            ) from error
        if self.metric not in ("", record.get("metric")):
            raise CheckpointError(
                f"{self.directory} holds the best by {record.get('metric')!r}, not by "
                f"{self.metric!r}: choose that one, or remove the directory"
            )
        return entries

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
        value, entries = metrics[self.metric], self.entries()
        if {"step": step, "value": value} in entries and not damage(self._prefix(step)):
            return True  # by a run that was killed after this; it is whole, and stays
        old = [entry for entry in entries if entry["step"] != step]
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
            delete(self._prefix(int(entry["step"])))
        return True

    def clean(self) -> None:
        """Deletes what a killed run has left: checkpoints that are not listed."""
        listed = [self._prefix(int(entry["step"])) for entry in self.entries()]
        for path in saved(self.directory) if listed else ():
            if path not in listed:
                delete(path)

    def _prefix(self, step: int) -> str:
        return str(self.directory / f"step-{step}")
