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
    names = dict.fromkeys(name for row in rows for name in row)
    trained = [n for n in names if not n.startswith("val_") and n not in _NOT_METRICS]
    panels: dict[str, dict[str, Points]] = {}
    for name in names:
        if name not in _NOT_METRICS:
            metric, line = _place(name, trained)
            panels.setdefault(metric, {})[line] = _points(rows, name, unit_of(rows))
    charts = [curves(metric, lines, unit_of(rows)) for metric, lines in panels.items()]
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


def _place(name: str, trained: Sequence[str]) -> tuple[str, str]:
    """Returns the panel of a metric, and the name of its line there.

    With several validation sets, `val_clean_loss` stands with `loss`.
    """
    if not name.startswith("val_"):
        return name, "training"
    own = name.removeprefix("val_")
    if own in trained:
        return own, "validation"
    for metric in sorted(trained, key=len, reverse=True):
        if own.endswith(f"_{metric}"):
            return metric, f"validation, {own.removesuffix(f'_{metric}')}"
    return own, "validation"


def _points(rows: Rows, key: str, unit: str) -> Points:
    kept = [(row[unit], row[key]) for row in rows if key in row and unit in row]
    return [x for x, _ in kept], [y for _, y in kept]
