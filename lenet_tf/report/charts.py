"""Charts of a page: curves over the epochs, calibration, scatter plots.

chart = curves("loss", {"training": (epochs, losses)})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lenet_tf.report.parts import INK, Chart, figure
from lenet_tf.report.scores import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that can be seen on a light and on a dark page.
BLUE, ORANGE = "#3d8bd0", "#e0703f"
COLORS = (
    BLUE,
    ORANGE,
    "#3aa564",
    "#a86fd0",
    "#c79a1e",
    "#d0588c",
    "#2fa7a7",
    "#8a8f98",
)

Points = tuple[Sequence[float], Sequence[float]]


def curves(
    metric: str,
    lines: Mapping[str, Points],
    unit: str = "epoch",
    colors: Sequence[str] = COLORS,
    legend: Mapping[str, str] | None = None,
) -> Chart:
    """Draws lines over the epochs.

    An accuracy, a share in [0, 1], is drawn as the error in percent, which tells more
    where it is small. The scale is logarithmic where values differ tenfold or more.

    Args:
      metric: Name of what is drawn.
      lines: Positions and values of each line by its name.
      unit: What the positions count.
      colors: Colour of each line.
      legend: Colours by name for the legend; by default those of the lines.
    """
    error = metric.removeprefix("val_") == "accuracy"
    axes = _axes()
    finite: list[float] = []
    for (x, y), color in zip(lines.values(), colors, strict=False):
        values = [100 * (1 - v) if error else v for v in y]
        finite += [v for v in values if math.isfinite(v)]
        mark = "o" if len(values) <= 12 else ""
        axes.plot(x, values, color=color, linewidth=1.6, marker=mark, markersize=3.5)
    if finite and min(finite) > 0 and max(finite) >= 10 * min(finite):
        axes.set_yscale("log")
        _plain_log(axes)
    axes.set_xlabel(unit)
    _whole_numbers(axes)
    title = metric.replace("val_", "validation_").replace("_", " ").capitalize()
    if error:
        held_out = " of validation" if metric.startswith("val_") else ""
        title = f"Error{held_out} in % (100 − accuracy)"
    if legend is None:
        legend = dict(zip(lines, colors, strict=False)) if len(lines) > 1 else {}
    return _chart(title, axes, legend)


def reliability(found: Calibration) -> list[Chart]:
    """Draws a reliability diagram, and how many examples have which confidence."""
    axes = _axes()
    width = found.edges[1] - found.edges[0]
    filled = found.counts > 0
    middles = found.edges[:-1] + width / 2
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    axes.bar(middles[filled], found.accuracy[filled], 0.9 * width, color=BLUE)
    axes.plot(found.confidence[filled], found.accuracy[filled], "o", color=ORANGE, ms=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the predicted class")
    first = _chart(
        "Share that is right",
        axes,
        {"bins": BLUE, "at their mean probability": ORANGE},
    )
    axes = _axes()
    axes.bar(middles[filled], found.counts[filled], 0.9 * width, color=BLUE)
    axes.set(xlim=(0, 1), xlabel="probability of the predicted class", yscale="log")
    _plain_log(axes)
    second = _chart("Number of examples", axes)
    return [first, second]


def scatter(title: str, x: np.ndarray, y: np.ndarray, x_name: str) -> Chart:
    """Draws points [N] and the line where both are equal; at most 2,000 of them."""
    axes = _axes()
    step = -(-len(x) // 2000) or 1
    axes.plot(x[::step], y[::step], ".", color=BLUE, markersize=3, alpha=0.6)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel(x_name)
    return _chart(title, axes)


def histogram(title: str, values: np.ndarray, x_name: str) -> Chart:
    """Draws how often values [N] come."""
    axes = _axes()
    axes.hist(values, bins=40, color=BLUE)
    axes.set_xlabel(x_name)
    return _chart(title, axes)


def _chart(title: str, axes: Axes, legend: Mapping[str, str] | None = None) -> Chart:
    drawn = axes.get_figure(root=True)
    assert drawn is not None
    return Chart(title, figure(drawn), legend or {})


def _axes() -> Axes:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = drawn.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=10, which="both")
    axes.xaxis.label.set(color=INK, size=10)
    axes.grid(color="#808080", alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    return axes


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _plain_log(axes: Axes) -> None:
    """Writes 0.1 and 1,000 at a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    few = high < 100 * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
