"""What the directory of a run tells without its checkpoints.

run = read_run("runs/mnist")
run.rows[-1]["val_accuracy"], run.result["test_accuracy"]
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.settings import settings_of
from lenet_tf.files import os_errors_as, read_json


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Settings, history and result of a run.

    Attributes:
      path: Directory of the run.
      settings: Content of config.json.
      rows: Rows of history.csv; empty before the first one.
      result: Content of result.json; empty if the run is not complete.
    """

    path: pathlib.Path
    settings: Mapping[str, Any]
    rows: list[dict[str, float]]
    result: Mapping[str, Any]

    @property
    def config(self) -> Config | None:
        """Settings of a run of LeNet-5, as from `run`; None if it is another model's.

        Raises:
          UsageError: A setting is wrong.
        """
        known = settings_of(Config).keys()
        ours = "dataset" in self.settings and self.settings.keys() <= known
        return Config.from_dict(self.settings) if ours else None


def read_run(workdir: pathlib.Path | str) -> RunFiles:
    """Reads the files of a run.

    Raises:
      UsageError: The directory holds no run, or a file cannot be read.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").exists():
        raise UsageError(
            f"workdir {workdir} holds no run: train one there first, or name another"
        )
    history, result = workdir / "history.csv", workdir / "result.json"
    rows: list[dict[str, float]] = []
    if history.exists():
        with (
            os_errors_as(UsageError, f"{history} cannot be read"),
            history.open(newline="") as file,
        ):
            try:
                rows = [
                    {name: float(value) for name, value in row.items() if value}
                    for row in csv.DictReader(file)
                ]
            except (ValueError, TypeError) as error:
                raise UsageError(f"{history} is damaged: {error}") from error
    return RunFiles(
        workdir,
        read_json(workdir / "config.json"),
        rows,
        read_json(result) if result.exists() else {},
    )


def metric_text(name: str, value: object) -> object:
    """Returns a value for a table or a fact: an accuracy in percent, nothing as "–"."""
    if name.endswith("accuracy") and isinstance(value, float):
        return f"{value:.2%}"
    return "–" if value is None else value
