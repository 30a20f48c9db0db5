"""Pictures of a run.

    history = trainer.fit(...)
    plot_history(history)             # a figure, which a notebook shows
    write_curves(history, workdir / "report" / "curves.png")

The curves show metrics over the epochs, training against validation, a panel for each
metric. They need matplotlib, which `pip install 'lenet_tf[plots]'` brings.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import logging

from lenet_tf.errors import UsageError
from lenet_tf.files import first_line, make_folder, os_errors_as, replacing
from lenet_tf.train.better import better_mode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lenet_tf.report.notebook_figure import NotebookFigure

TRAINING_COLOR = "#2a6f97"
VALIDATION_COLOR = "#d1603d"
_MOST_PANELS = 12


def plot_history(
    history: Mapping[str, Sequence[float]],
    metrics: Sequence[str] | None = None,
    unit: str | None = None,
) -> NotebookFigure:
    """Draws metrics of training and validation over the epochs, a panel for each.

    The best epoch on the validation split is ringed, and its value is in the legend, if
    the name of the metric tells which values are better. Values that are not finite
    leave a gap.

    Args:
      history: Values by epoch under the metrics' names, under `val_` and these names,
        and under `epoch` (counted from 1 where it is absent), as `fit` returns them.
        Each may be absent or empty; other names are ignored. Values of `accuracy` are
        shares in [0, 1].
      metrics: Names of the metrics to draw, without `val_`; by default all, at most 12.
      unit: Name of the entry that the horizontal axis shows, such as "step"; values
        without that entry are counted from 1. By default "epoch", or "step" where an
        epoch has several values.

    Returns:
      A matplotlib figure, which is shown if it is the last value of a notebook's cell.
      `figure.savefig(path)` writes it. It is unknown to pyplot, so it needs no `close`.

    Raises:
      UsageError: matplotlib is not installed.
    """
    # Imported here, so that a run that draws nothing does not wait for it. pyplot would
    # keep global state and choose a backend for all.
    try:
        from lenet_tf.report.notebook_figure import NotebookFigure
    except ModuleNotFoundError as error:
        raise UsageError(
            "matplotlib is not installed: run pip install 'lenet_tf[plots]'"
        ) from error

    if unit is None:  # the rows of a run may come more often than its epochs
        epochs = history.get("epoch", ())
        unit = "epoch" if len({*epochs}) == len(epochs) else "step"
    if metrics is None:
        names = (name for name in history if name not in ("epoch", "step"))
        metrics = [*dict.fromkeys(name.removeprefix("val_") for name in names)]
        metrics = metrics[:_MOST_PANELS]
    columns = 1 if len(metrics) == 1 else 2
    lines = max(1, math.ceil(len(metrics) / columns))
    figure = NotebookFigure(
        figsize=(5.5 * columns, 4.2 * lines), dpi=120, layout="constrained"
    )
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes, metric in itertools.zip_longest(panels, metrics):
        if metric is None:
            axes.set_axis_off()
        else:
            _draw_panel(axes, history, metric, unit)
    return figure


def write_curves(
    history: Mapping[str, Sequence[float]],
    path: pathlib.Path,
    metrics: Sequence[str] | None = ("loss", "accuracy"),
    unit: str | None = "epoch",
) -> None:
    """Writes the figure of `plot_history` into a file.

    Args:
      history: As in `plot_history`.
      path: PNG file to write, whole or not at all. Its folder is made if it is missing.
      metrics: As in `plot_history`.
      unit: As in `plot_history`.

    Raises:
      UsageError: The file cannot be written, or matplotlib is not installed.
    """
    figure = plot_history(history, metrics, unit)
    with os_errors_as(UsageError, f"{path} cannot be written"):
        make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(figure.png())


def draw_curves(
    history: Mapping[str, Sequence[float]],
    path: pathlib.Path,
    metrics: Sequence[str] | None = ("loss", "accuracy"),
    unit: str | None = "epoch",
) -> None:
    """Writes the curves; where that fails, a warning of one line is logged.

    For the end of a run, whose result does not depend on a picture. The arguments are
    those of `write_curves`.
    """
    try:
        write_curves(history, path, metrics, unit)
    except Exception as error:  # matplotlib may raise anything, as for its matplotlibrc
        logging.warning("the curves were not drawn: %s", first_line(error))


def draw_all_curves(rows: Sequence[Mapping[str, float]], path: pathlib.Path) -> None:
    """Draws all metrics of a run's rows, as `draw_curves` does.

    Args:
      rows: Rows of the history, each with `epoch`, `step` and metrics.
      path: PNG file to write.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    history = {name: [row.get(name, math.nan) for row in rows] for name in names}
    draw_curves(history, path, metrics=None, unit=None)


def _draw_panel(
    axes: Axes, history: Mapping[str, Sequence[float]], metric: str, unit: str
) -> None:
    """Draws `metric` and `val_<metric>`; see `plot_history`."""
    from matplotlib.ticker import MaxNLocator

    percent = metric == "accuracy"  # a share, shown in percent
    scale = 100 if percent else 1
    name = (metric[:1].upper() + metric[1:]).replace("_", " ")
    epochs: Sequence[float] = ()
    for key, legend, color in (
        (metric, "training", TRAINING_COLOR),
        (f"val_{metric}", "validation", VALIDATION_COLOR),
    ):
        values = [scale * float(value) for value in history.get(key, ())]
        if not values:
            continue
        epochs = _epochs(history, unit, len(values))
        # The best value stands in the legend, where no curve can cross it.
        mode = _better_mode(metric) if legend == "validation" else None
        best = _best(values, mode == "max") if mode else None
        if best is not None:
            value = f"{values[best]:.2f} %" if percent else f"{values[best]:.4f}"
            legend += f", best {value} in {unit} {epochs[best]:g}"
            axes.plot(epochs[best], values[best], "o", ms=11, mfc="none", color=color)
        # Markers show a lone epoch, which a line would not; in a crowd they blur it.
        size = 5 if len(values) <= 12 else 2.5
        axes.plot(epochs, values, "o-", color=color, label=legend, markersize=size)

    axes.set_title(f"{name} by {unit}", loc="left", fontweight="bold")
    axes.set_xlabel(unit.capitalize())
    axes.set_ylabel(f"{name} (%)" if percent else name)
    axes.spines[["top", "right"]].set_visible(False)
    if not epochs:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no epochs", transform=axes.transAxes, ha="center")
        return
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.legend(frameon=False)


def _epochs(
    history: Mapping[str, Sequence[float]], unit: str, count: int
) -> Sequence[float]:
    """Returns the numbers of the epochs, or steps, that `count` values belong to."""
    given = history.get(unit, ())
    return given if len(given) == count else range(1, count + 1)


def _better_mode(metric: str) -> str | None:
    """Returns which values of a metric are better; None if the name does not tell."""
    try:
        return better_mode(metric)
    except UsageError:
        return None


def _best(values: Sequence[float], higher_is_better: bool) -> int | None:
    """Returns the index of the best finite value, the first of equals."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    choose = max if higher_is_better else min
    return choose(finite, key=values.__getitem__) if finite else None
