"""The section about how a run went: its metrics over the epochs or steps.

section = history_section(rows, best="val_accuracy")
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from lenet_tf.report.charts import COLORS, Points, curves
from lenet_tf.report.parts import Chart, Section

Rows = Sequence[Mapping[str, float]]

_NOT_METRICS = ("epoch", "step")


def history_section(rows: Rows, more: Sequence[Chart] = ()) -> Section:
    """Draws a panel for each metric, training and validation together.

    Args:
      rows: Rows of the history, each with `epoch`, `step` and metrics.
      more: Charts to show with them.
    """
    charts = [
        curves(metric, _lines(rows, metric), unit_of(rows)) for metric in metrics(rows)
    ]
    note = "" if rows else "There is no row of the history."
    return Section("Training", [*charts, *more], note)


def comparison_charts(runs: Mapping[str, Sequence[Rows]]) -> list[Chart]:
    """Draws each metric of several runs in a panel, a colour for each name.

    Args:
      runs: Rows of the histories by name; all of a name have its colour.
    """
    names = {name: COLORS[i % len(COLORS)] for i, name in enumerate(runs)}
    all_rows = [rows for group in runs.values() for rows in group]
    found = dict.fromkeys(name for rows in all_rows for name in metrics(rows))
    unit = "epoch" if all(unit_of(rows) == "epoch" for rows in all_rows) else "step"
    charts = []
    for metric in found:
        held_out = f"val_{metric}"
        with_it = [any(held_out in row for row in rows) for rows in all_rows]
        key = held_out if any(with_it) else metric
        lines: dict[str, Points] = {}
        colors = []
        for name, group in runs.items():
            for rows in group:
                own = key if any(key in row for row in rows) else metric
                lines[str(len(lines))] = _points(rows, own, unit)
                colors.append(names[name])
        chart = curves(key, lines, unit, colors, names)
        if any(with_it) and not all(with_it):
            note = "Runs without validation are shown by their training."
            chart = dataclasses.replace(chart, note=note)
        charts.append(chart)
    return charts


def metrics(rows: Rows) -> list[str]:
    """Names the metrics of a history, without `val_`."""
    names = (name for row in rows for name in row if name not in _NOT_METRICS)
    return [*dict.fromkeys(name.removeprefix("val_") for name in names)]


def unit_of(rows: Rows) -> str:
    """Returns what positions count: "step" if an epoch has several rows."""
    epochs = [row.get("epoch", math.nan) for row in rows]
    return "epoch" if len({*epochs}) == len(epochs) else "step"


def _lines(rows: Rows, metric: str) -> dict[str, Points]:
    lines: dict[str, Points] = {}
    names = dict.fromkeys(name for row in rows for name in row)
    unit = unit_of(rows)
    if metric in names:
        lines["training"] = _points(rows, metric, unit)
    if f"val_{metric}" in names:
        lines["validation"] = _points(rows, f"val_{metric}", unit)
    return lines


def _points(rows: Rows, key: str, unit: str) -> Points:
    kept = [(row[unit], row[key]) for row in rows if key in row and unit in row]
    return [x for x, _ in kept], [y for _, y in kept]
