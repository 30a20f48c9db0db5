"""Writes a run for TensorBoard.

    trainer.fit(batches, epochs=3, actions=[TensorBoard("runs/mine/tensorboard")])

`tensorboard --logdir runs/mine` then shows its curves. It needs the package
tensorboard, which `pip install 'lenet_tf[tensorboard]'` brings.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.files import make_folder, os_errors_as
from lenet_tf.parallel.workers import is_chief_of
from lenet_tf.train.actions import Moment
from lenet_tf.train.actions.event_files import cut_events
from lenet_tf.train.state import TrainState

TRAINING, VALIDATION = "train", "validation"
_NOT_METRICS = ("epoch", "step")


class TensorBoard:
    """Action that writes metrics for TensorBoard after each inner loop.

    There are two runs in the folder, `train` and `validation`, and a metric has the
    same tag in both. After each inner loop `train` gets the metrics since the last row
    and `examples_per_second`. Of a row, both get their part. `Trainer(watch=...)`
    makes norms of gradients and learning rates metrics.

    A resumed run doubles no point: what a killed process has written after the
    checkpoint is removed. Only the chief of several workers writes.

    Args:
      folder: Folder to write to, made if it is missing.
      settings: Settings of the run, JSON values by name, shown as text.
      histograms: Whether to write a histogram of each trained variable at each row.

    Raises:
      UsageError: The package tensorboard is not installed.
    """

    def __init__(
        self,
        folder: pathlib.Path | str,
        *,
        settings: Mapping[str, object] | None = None,
        histograms: bool = False,
    ) -> None:
        if not hasattr(tf.summary, "scalar"):
            raise UsageError(
                "tensorboard is not installed: run pip install 'lenet_tf[tensorboard]'"
            )
        self.folder = pathlib.Path(folder)
        self._settings, self._histograms = settings, histograms
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._writes = True

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Prepares the folder, before the first step.

        Raises:
          UsageError: The folder cannot be written.
        """
        self._writes = is_chief_of(state.step)
        if not self._writes:
            return
        with os_errors_as(UsageError, f"{self.folder} cannot be written"):
            make_folder(self.folder)
            for run in (TRAINING, VALIDATION):
                cut_events(self.folder / run, after=int(state.step.numpy()))

    def __call__(self, moment: Moment) -> None:
        """Writes the metrics of a moment, and of its row if it has one."""
        if not self._writes:
            return
        values = {**moment.metrics, "examples_per_second": moment.examples_per_second}
        if moment.row is not None:
            held_out = {
                name.removeprefix("val_"): value
                for name, value in moment.row.items()
                if name.startswith("val_")
            }
            values |= {
                name: value
                for name, value in moment.row.items()
                if not name.startswith("val_") and name not in _NOT_METRICS
            }
            self._write(VALIDATION, held_out, moment.step)
        self._write(TRAINING, values, moment.step)
        if moment.row is not None and self._histograms:
            with self._writer(TRAINING).as_default(moment.step):
                for variable in moment.state.model.trainable_variables:
                    tf.summary.histogram(variable.name.split(":")[0], variable)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, run: str, values: Mapping[str, float], step: int) -> None:
        numbers = {k: v for k, v in values.items() if np.ndim(v) == 0}
        if numbers:
            with self._writer(run).as_default(step):
                for name, value in numbers.items():
                    tf.summary.scalar(name, value)

    def _writer(self, run: str) -> tf.summary.SummaryWriter:
        if run not in self._writers:
            first = not (self.folder / run).exists()
            writer = tf.summary.create_file_writer(str(self.folder / run))
            self._writers[run] = writer
            if run == TRAINING and first and self._settings:
                lines = json.dumps(self._settings, indent=2, default=str).splitlines()
                with writer.as_default(0):
                    tf.summary.text("settings", "\n".join(f"    {s}" for s in lines))
        return self._writers[run]
