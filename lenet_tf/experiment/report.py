"""Pictures of a run.

    history = trainer.fit(...)
    write_curves(history, workdir / "report" / "curves.png")

The curves show loss and accuracy over the epochs, training against validation, side by
side in one PNG. They need matplotlib, which `pip install 'lenet_tf[plots]'` brings.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import logging

from lenet_tf.errors import UsageError
from lenet_tf.files import first_line, make_folder, os_errors_as, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING_COLOR = "#2a6f97"
VALIDATION_COLOR = "#d1603d"


def draw_curves(history: Mapping[str, Sequence[float]], path: pathlib.Path) -> None:
    """Writes the curves; where that fails, a warning of one line is logged.

    For the end of a run, whose result does not depend on a picture.

    Args:
      history: As for `write_curves`.
      path: PNG file to write.
    """
    try:
        write_curves(history, path)
    except Exception as error:  # matplotlib may raise anything, as for its matplotlibrc
        logging.warning("the curves were not drawn: %s", first_line(error))


def write_curves(history: Mapping[str, Sequence[float]], path: pathlib.Path) -> None:
    """Draws training and validation loss and accuracy over the epochs.

    The best epoch on the validation split is ringed, and its value is in the legend.
    Values that are not finite leave a gap.

    Args:
      history: Values by epoch under `loss`, `accuracy` (a share in [0, 1]), `val_loss`,
        `val_accuracy` and `epoch` (counted from 1 where it is absent). Each may be
        absent or empty; other names are ignored.
      path: PNG file to write, whole or not at all. Its folder is made if it is missing.

    Raises:
      UsageError: The file cannot be written, or matplotlib is not installed.
    """
    # Imported here, so that a run that draws nothing does not wait for it. The canvas
    # is made by hand: pyplot would keep global state and choose a backend for all.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(
            "matplotlib is not installed: run pip install 'lenet_tf[plots]'"
        ) from error

    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _draw_panel(loss_axes, history, "loss", "Loss")
    _draw_panel(accuracy_axes, history, "accuracy", "Accuracy (%)", percent=True)
    with os_errors_as(UsageError, f"{path} cannot be written"):
        make_folder(path.parent)
    with replacing(path) as temporary:
        canvas.print_png(temporary)


def _draw_panel(
    axes: Axes,
    history: Mapping[str, Sequence[float]],
    metric: str,
    label: str,
    percent: bool = False,
) -> None:
    """Draws `metric` and `val_<metric>`.

    Args:
      axes: Axes to draw on.
      history: As for `write_curves`.
      metric: Name of the metric.
      label: Label of the vertical axis.
      percent: Whether the metric is a share, shown in percent, and better when higher.
    """
    from matplotlib.ticker import MaxNLocator

    scale = 100 if percent else 1
    epochs: Sequence[float] = ()
    for key, legend, color in (
        (metric, "training", TRAINING_COLOR),
        (f"val_{metric}", "validation", VALIDATION_COLOR),
    ):
        values = [scale * float(value) for value in history.get(key, ())]
        if not values:
            continue
        epochs = _epochs(history, len(values))
        # The best value stands in the legend, where no curve can cross it.
        best = _best(values, percent) if legend == "validation" else None
        if best is not None:
            value = f"{values[best]:.2f} %" if percent else f"{values[best]:.4f}"
            legend += f", best {value} in epoch {epochs[best]:g}"
            axes.plot(epochs[best], values[best], "o", ms=11, mfc="none", color=color)
        # Markers show a lone epoch, which a line would not; in a crowd they blur it.
        size = 5 if len(values) <= 12 else 2.5
        axes.plot(epochs, values, "o-", color=color, label=legend, markersize=size)

    axes.set_title(f"{label.split()[0]} by epoch", loc="left", fontweight="bold")
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
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


def _epochs(history: Mapping[str, Sequence[float]], count: int) -> Sequence[float]:
    """Returns the numbers of the epochs that `count` values belong to."""
    given = history.get("epoch", ())
    return given if len(given) == count else range(1, count + 1)


def _best(values: Sequence[float], higher_is_better: bool) -> int | None:
    """Returns the index of the best finite value, the first of equals."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    choose = max if higher_is_better else min
    return choose(finite, key=values.__getitem__) if finite else None
