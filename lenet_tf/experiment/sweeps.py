"""Runs over a grid of settings and several seeds, each in a directory of its own.

    points = grid("learning_rate=1e-3,3e-3;activation=tanh,relu")
    rows = sweep({"epochs": 3}, points, seeds=3, workdir="runs/sweep")
    print(table(rows))

The same sweep again goes on where it was stopped or killed: complete runs are only
read, and the one that was interrupted is resumed.
"""

from __future__ import annotations

import difflib
import itertools
import math
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from absl import logging

from lenet_tf.errors import NonFiniteError, UsageError
from lenet_tf.experiment.comparisons import compare
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.declaration import Value
from lenet_tf.experiment.recipes import recipe
from lenet_tf.experiment.reports import REPORT_FILE, try_to_report
from lenet_tf.experiment.runs import run
from lenet_tf.experiment.settings import settings_of
from lenet_tf.files import write_csv
from lenet_tf.report.parts import Table

Point = Mapping[str, Value]
Row = dict[str, object]

SCORES = ("val_accuracy", "test_accuracy")


def grid(text: str) -> list[Point]:
    """Returns all combinations of values of settings.

    Args:
      text: Settings, each with its values, as in "epochs=1,2;activation=tanh,relu".

    Raises:
      UsageError: A setting is unknown, comes twice, or has a wrong value.
    """
    settings = settings_of(Config)
    values: dict[str, list[Value]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, listed = part.partition("=")
        if not equals or not listed:
            raise UsageError(f"grid has {part!r}: give values, as in {name}=1,2")
        if name not in settings or name in ("seed", "data_dir", "idx_dir"):
            near = difflib.get_close_matches(name, settings, n=1)
            hint = f"is it {near[0]}?" if near else "see the flags of train --help"
            hint = "give the number of --seeds" if name == "seed" else hint
            raise UsageError(f"grid has {name!r}, which no grid can have: {hint}")
        if name in values:
            raise UsageError(f"grid has {name!r} twice: give all its values together")
        values[name] = [settings[name].parse(v.strip()) for v in listed.split(",")]
    if not values:
        raise UsageError("grid is empty: give settings, as in learning_rate=1e-3,3e-3")
    return [
        dict(zip(values, chosen, strict=True))
        for chosen in itertools.product(*values.values())
    ]


def sweep(
    settings: Mapping[str, Value],
    points: Sequence[Point],
    seeds: int,
    workdir: pathlib.Path | str,
) -> list[Row]:
    """Runs all points with all seeds, one after the other, and compares them.

    Means and deviations go into sweep.csv, and with the curves into report.html.

    Args:
      settings: Settings of all runs.
      points: Settings of each point, such as those of `grid`.
      seeds: Number of runs of each point; their seeds are 0, 1, ...
      workdir: Directory of the sweep, in which each run has a directory of its own.

    Returns:
      For each point its settings; `runs`, the number of runs that were not stopped by a
      loss or gradient that was not finite; and mean and standard deviation (n - 1) of
      the accuracies of the last epoch on the validation split and of the test split,
      which are NaN where there are too few runs.

    Raises:
      UsageError: A setting is wrong, which is found out before the first run, or there
        are several workers; and what `run` raises.
      StopRequested: SIGTERM or SIGINT came; the current run is saved.
    """
    if "TF_CONFIG" in os.environ:
        raise UsageError(
            "TF_CONFIG is set: a sweep needs a single process, so unset it"
        )
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}: it must be at least 1")
    workdir = pathlib.Path(workdir)
    for point in points:
        if both := sorted({*point} & {*settings}):
            raise UsageError(f"{', '.join(both)} is in the grid too: leave one out")
    plans = [
        (point, [(seed, _config(settings, point, seed)) for seed in range(seeds)])
        for point in points
    ]
    rows: list[Row] = []
    for point, configs in plans:
        scores = [_scores(config, workdir / _name(point, s)) for s, config in configs]
        rows.append(_row(point, [score for score in scores if score is not None]))
    write_csv(workdir / "sweep.csv", rows)
    try_to_report(lambda: _report(workdir, rows, points, seeds))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Returns the rows of a sweep as text, a line for each point."""
    lines = []
    for row in rows:
        settings = [f"{k}={v}" for k, v in row.items() if k not in _figures()]
        scores = [
            f"{name} {_percent(row[name])} ± {_percent(row[f'{name}_sd'])}"
            for name in SCORES
        ]
        lines.append("  ".join([" ".join(settings), f"{row['runs']} runs", *scores]))
    return "\n".join(lines)


def _report(
    workdir: pathlib.Path, rows: Sequence[Row], points: Sequence[Point], seeds: int
) -> None:
    """Writes the page that compares the runs, a colour for each point."""
    shown = [
        [", ".join(f"{k}={v}" for k, v in point.items()), row["runs"]]
        + [f"{_percent(row[s])} ± {_percent(row[f'{s}_sd'])}" for s in SCORES]
        for point, row in zip(points, rows, strict=True)
    ]
    columns = ["settings", "runs", *(name.replace("_", " ") for name in SCORES)]
    runs = [
        (workdir / _name(point, seed), str(line[0]))
        for point, line in zip(points, shown, strict=True)
        for seed in range(seeds)
    ]
    compare(
        [path for path, _ in runs],
        workdir / REPORT_FILE,
        [name for _, name in runs],
        f"Sweep {workdir}: {len(points)} settings, {seeds} seeds",
        [Table(columns, shown, "Mean and standard deviation over the seeds")],
    )


def _config(settings: Mapping[str, Value], point: Point, seed: int) -> Config:
    chosen = {**settings, **point}
    base = recipe(str(chosen.get("recipe", Config.recipe)))
    return Config.from_dict(base, **chosen, seed=seed)


def _scores(config: Config, workdir: pathlib.Path) -> dict[str, float] | None:
    """Returns the accuracies of a run; None if its loss or gradient was not finite."""
    logging.info("run %s", workdir)
    try:
        result = run(config, workdir)
    except NonFiniteError as error:
        logging.warning("%s: %s", workdir, error)
        return None
    return {name: result.get(name, math.nan) for name in SCORES}


def _row(point: Point, scores: Sequence[Mapping[str, float]]) -> Row:
    row: Row = {**point, "runs": len(scores)}
    for name in SCORES:
        values = [score[name] for score in scores]
        row[name] = statistics.fmean(values) if values else math.nan
        row[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
    return row


def _figures() -> list[str]:
    return ["runs", *SCORES, *(f"{name}_sd" for name in SCORES)]


def _name(point: Point, seed: int) -> str:
    parts = [*(f"{name}={value}" for name, value in point.items()), f"seed={seed}"]
    return ",".join(parts).replace("/", "_")


def _percent(share: object) -> str:
    assert isinstance(share, float)
    return "-" if math.isnan(share) else f"{share:.2%}"
