"""Writes a run for TensorBoard.

    trainer.fit(batches, epochs=3, actions=[TensorBoard("runs/mine/tensorboard")])

`tensorboard --logdir runs/mine` then shows its curves. It needs the package
tensorboard, which `pip install 'lenet_tf[tensorboard]'` brings.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.files import make_folder, os_errors_as
from lenet_tf.parallel.workers import is_chief_of
from lenet_tf.train.actions import Moment
from lenet_tf.train.actions.event_files import cut_events
from lenet_tf.train.actions.mistakes import Mistakes
from lenet_tf.train.state import TrainState

TRAINING, VALIDATION = "train", "validation"
_NOT_METRICS = ("epoch", "step")
_FRAME = 96  # grey between the images of a sheet


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
      settings: Settings of the run, JSON values by name, shown as text. Those that are
        numbers, strings or Booleans are hyperparameters, by which TensorBoard compares
        the runs below a folder.
      histograms: Whether to write a histogram of each trained variable at each row.
      mistakes: Finds the worst mistakes of a classifier. They are written at each row
        as one image, and what they are as a table of text with the same rows and
        columns.

    Raises:
      UsageError: The package tensorboard is not installed.
    """

    def __init__(
        self,
        folder: pathlib.Path | str,
        *,
        settings: Mapping[str, object] | None = None,
        histograms: bool = False,
        mistakes: Mistakes | None = None,
    ) -> None:
        if not hasattr(tf.summary, "scalar"):
            raise UsageError(
                "tensorboard is not installed: run pip install 'lenet_tf[tensorboard]'"
            )
        self.folder = pathlib.Path(folder)
        self._settings, self._histograms = settings, histograms
        self._mistakes = mistakes
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._writes = True

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Prepares the folder, before the first step.

        Raises:
          UsageError: The folder cannot be written, or the mistakes cannot be found.
        """
        self._writes = is_chief_of(state.step)
        if not self._writes:
            return
        if self._mistakes is not None:
            self._mistakes.check(state)
        with os_errors_as(UsageError, f"{self.folder} cannot be written"):
            make_folder(self.folder)
            for run in (TRAINING, VALIDATION):
                cut_events(self.folder / run, after=int(state.step.numpy()))
            # A resumed run may have other settings, so they are always written anew.
            cut_events(self.folder, after=-1)
        if self._settings:
            _write_settings(self.folder, self._settings)

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
                _write_weights(moment.state.model)
        if moment.row is not None and self._mistakes is not None:
            number, last = len(moment.state.record.rows), moment.step == moment.steps
            if last or number % self._mistakes.rows == 0:
                with self._writer(VALIDATION).as_default(moment.step):
                    _write_mistakes(self._mistakes, moment.state)
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
            writer = tf.summary.create_file_writer(str(self.folder / run))
            self._writers[run] = writer
        return self._writers[run]


def _write_settings(folder: pathlib.Path, settings: Mapping[str, object]) -> None:
    """Writes settings as text, and those that are simple values as hyperparameters.

    They stand in the folder of both runs, so that TensorBoard shows the metrics of
    both beside them.
    """
    from tensorboard.plugins.hparams import api

    simple = {k: v for k, v in settings.items() if isinstance(v, int | float | str)}
    lines = json.dumps(settings, indent=2, default=str).splitlines()
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(0):
        tf.summary.text("settings", "\n".join(f"    {line}" for line in lines))
        if simple:
            api.hparams(simple)
    writer.close()


def _write_weights(model: tf.Module) -> None:
    """Writes a histogram of each trained variable, to the default writer."""
    names: dict[str, int] = {}
    for variable in model.trainable_variables:
        name = variable.name.split(":")[0]
        names[name] = names.get(name, 0) + 1
        number = f"_{names[name]}" if names[name] > 1 else ""  # each tag has one
        tf.summary.histogram(f"weights/{name}{number}", variable)


def _write_mistakes(search: Mistakes, state: TrainState) -> None:
    """Writes mistakes as one image, and as a table with a cell for each tile of it."""
    mistakes = search.find(state)
    if not mistakes:
        tf.summary.text("mistakes/list", "no mistakes")
        return
    columns = math.isqrt(search.count - 1) + 1  # all of them make a square
    rows = [mistakes[i : i + columns] for i in range(0, len(mistakes), columns)]
    lines = ["|" * (columns + 1), "| --- " * columns + "|"]  # a head without text
    lines += [f"| {' | '.join(mistake.text for mistake in row)} |" for row in rows]
    tf.summary.text("mistakes/list", "\n".join(lines))
    height, width, channels = np.add(mistakes[0].image.shape, (2, 2, 0))
    sheet = np.full([len(rows), columns, height, width, channels], _FRAME, np.uint8)
    for i, mistake in enumerate(mistakes):
        sheet[i // columns, i % columns, 1:-1, 1:-1] = mistake.image
    shape = 1, len(rows) * height, columns * width, channels
    tf.summary.image("mistakes", sheet.swapaxes(1, 2).reshape(shape))
