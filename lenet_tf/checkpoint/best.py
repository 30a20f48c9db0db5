"""The best checkpoints of a run by a chosen metric.

    checkpoint = tf.train.Checkpoint(model=model, step=step)
    best = BestCheckpoints(checkpoint, "runs/mine/best", "val_mae", mode="min")
    best.clean()                                 # deletes what a killed run has left
    best.offer(700, {"val_mae": 0.12})           # saved if it is among the best
    restore_model(model, best.path())

A file `best.json` beside the checkpoints lists their steps and values.
"""

from __future__ import annotations

import math
import operator
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.storage import delete, find_damage, list_checkpoints, write
from lenet_tf.errors import CheckpointError
from lenet_tf.files import os_errors_as, read_json, write_json


class Entry(TypedDict):
    """One checkpoint of the list: its step, and the value of the metric there."""

    step: int
    value: float


class BestCheckpoints:
    """Keeps the checkpoints with the best values of a metric.

    Args:
      checkpoint: Objects to save.
      directory: Folder of the checkpoints, made at the first save; `best.json` in it
        lists their values.
      metric: Name of the metric, such as "val_accuracy"; "" to read
        what was chosen by whatever metric.
      mode: "max" when higher values are better, "min" when lower ones are.
      keep: Number of checkpoints to keep, at least 1.

    Raises:
      CheckpointError: `mode` is unknown or `keep` is below 1.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: pathlib.Path | str,
        metric: str,
        mode: str = "max",
        keep: int = 1,
    ) -> None:
        if mode not in ("max", "min") or keep < 1:
            raise CheckpointError(
                f"mode is {mode!r}, keep is {keep}: give 'max' or 'min', and 1 or more"
            )
        self._checkpoint, self.directory = checkpoint, pathlib.Path(directory)
        self.metric, self._sign, self._keep = metric, 1 if mode == "max" else -1, keep
        self._damaged: set[int] = set()  # steps that are listed, but not whole

    @property
    def _record(self) -> pathlib.Path:
        return self.directory / "best.json"

    def entries(self) -> list[Entry]:
        """Returns the kept checkpoints, best first; of equal values, the older first.

        Raises:
          UsageError: The list cannot be read, is damaged, or is of another metric.
        """
        with os_errors_as(CheckpointError, f"{self._record} cannot be read"):
            if not self._record.exists():
                return []
        record = read_json(self._record)
        try:
            entries = [_entry(fields) for fields in record["checkpoints"]]
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self._record} is damaged: put a copy back, or move {self.directory} "
                "away to choose the best among the epochs to come"
            ) from error
        if self.metric not in ("", record.get("metric")):
            raise CheckpointError(
                f"{self.directory} holds the best by {record.get('metric')!r}, not by "
                f"{self.metric!r}: choose that one, or move the directory away"
            )
        return entries

    def path(self, rank: int = 1) -> str | None:
        """Returns the prefix of the best checkpoint, or None when there is none.

        Args:
          rank: 1 for the best, 2 for the second best, and so on.

        Raises:
          CheckpointError: Fewer checkpoints are kept, or `rank` is below 1.
        """
        entries = self.entries()
        if not entries:
            return None
        if not 1 <= rank <= len(entries):
            raise CheckpointError(
                f"rank is {rank}, but {self.directory} holds {len(entries)}: give 1 to "
                f"{len(entries)}"
            )
        return self._prefix(entries[rank - 1]["step"])

    def offer(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Saves the current state if it is among the best; a NaN never is.

        Args:
          step: Step of the current state, which names the checkpoint.
          metrics: Values of the metrics at this step, by name.

        Returns:
          Whether the checkpoint of this step is kept.

        Raises:
          CheckpointError: The metric is missing, or the checkpoint cannot be written;
            those kept before stay as they were.
        """
        if self.metric not in metrics:
            raise CheckpointError(
                f"there is no metric {self.metric!r}: choose one of "
                f"{', '.join(metrics)}"
            )
        value, entries = metrics[self.metric], self.entries()
        listed = {"step": step, "value": value} in entries
        if listed and find_damage(self._prefix(step)) is None:
            return True  # saved before, by a run that was then killed
        whole = [entry for entry in entries if entry["step"] not in self._damaged]
        ranked = [entry for entry in whole if entry["step"] != step]
        ranked.append({"step": step, "value": value})
        ranked.sort(key=lambda entry: (-self._sign * entry["value"], entry["step"]))
        kept = ranked[: self._keep]
        if math.isnan(value) or all(entry["step"] != step for entry in kept):
            return False
        write(self._checkpoint, self._prefix(step))
        # After the new one is saved and before the old are deleted, so that all listed
        # checkpoints exist.
        write_json(self._record, {"metric": self.metric, "checkpoints": kept})
        for old in {e["step"] for e in entries} - {e["step"] for e in kept}:
            delete(self._prefix(old))
        self._damaged.clear()
        return True

    def clean(self) -> None:
        """Deletes checkpoints that are not listed, which a killed run has left.

        Nothing is deleted while none is listed. A listed one that is missing or damaged
        is logged and left as it is, until a new checkpoint takes its place.

        Raises:
          UsageError: The list or a checkpoint cannot be read or deleted.
        """
        listed = {self._prefix(entry["step"]): entry for entry in self.entries()}
        for path, entry in listed.items():
            reason = find_damage(path)
            if reason is not None:
                logging.warning("best checkpoint %s is damaged: %s", path, reason)
                self._damaged.add(entry["step"])
        for path in list_checkpoints(self.directory) if listed else ():
            if path not in listed:
                delete(path)

    def _prefix(self, step: int) -> str:
        return str(self.directory / f"step-{step}")


def _entry(fields: Mapping[str, Any]) -> Entry:
    """Checks the types and the range of one entry of the list."""
    step, value = operator.index(fields["step"]), float(+fields["value"])
    if step < 0 or math.isnan(value):
        raise ValueError("no step, or no number")
    return {"step": step, "value": value}
