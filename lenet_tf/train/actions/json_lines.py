"""Writes a line of JSON after each inner loop, for programs that watch a run.

trainer.fit(batches, epochs=3, actions=[JsonLines("runs/mine/loops.jsonl")])
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from lenet_tf.errors import UsageError
from lenet_tf.files import make_folder, os_errors_as, write_text
from lenet_tf.parallel.workers import is_chief_of
from lenet_tf.train.actions import Moment
from lenet_tf.train.state import TrainState


class JsonLines:
    """Action that appends a line of JSON after each inner loop.

    A line has `step`, `epoch`, `seconds` and `examples_per_second`, the metrics since
    the last row, and if a row of the history was just made, `row`. Values that are not
    finite are null. A resumed run doubles no line: what a killed process has written
    after the checkpoint is removed. Only the chief of several workers writes.

    Args:
      path: Path of the file; its folder is made if it is missing.
    """

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path)
        self._writes = True

    def check(self, state: TrainState, metrics: Sequence[str]) -> None:
        """Prepares the file, before the first step.

        Raises:
          UsageError: The file cannot be written.
        """
        self._writes = is_chief_of(state.step)
        if self._writes:
            with os_errors_as(UsageError, f"{self.path} cannot be written"):
                make_folder(self.path.parent)
                self._cut(after=int(state.step.numpy()))

    def __call__(self, moment: Moment) -> None:
        """Appends the line of a moment."""
        if not self._writes:
            return
        line: dict[str, object] = {
            "step": moment.step,
            "epoch": moment.epoch,
            "seconds": round(moment.seconds, 3),
            "examples_per_second": round(moment.examples_per_second, 1),
            **_finite(moment.metrics),
        }
        if moment.row is not None:
            line["row"] = _finite(moment.row)
        with (
            os_errors_as(UsageError, f"{self.path} cannot be written"),
            self.path.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(line) + "\n")

    def _cut(self, after: int) -> None:
        """Removes the lines of later steps, and one that a kill has cut off."""
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        kept = []
        for line in text.splitlines():
            try:
                if json.loads(line)["step"] > after:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept.append(f"{line}\n")
        if "".join(kept) != text:
            write_text(self.path, "".join(kept))


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Returns scalars by name, with None for what JSON has no number for."""
    return {
        name: float(value) if math.isfinite(value) else None
        for name, value in values.items()
        if np.ndim(value) == 0
    }
