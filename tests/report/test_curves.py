"""Behaviour of lenet_tf.report.curves."""

from __future__ import annotations

import math
import os
import pathlib
import pickle
from typing import Any

import matplotlib
import matplotlib.figure
import pytest
from matplotlib import pyplot
from PIL import Image

import lenet_tf
from lenet_tf.report import curves as report

HISTORY: dict[str, list[float]] = {
    "epoch": [1, 2, 3],
    "loss": [0.6, 0.2, 0.1],
    "accuracy": [0.8, 0.93, 0.96],
    "val_loss": [0.3, 0.15, 0.16],
    "val_accuracy": [0.9, 0.955, 0.95],
}


def draw(history: dict[str, list[float]], directory: pathlib.Path) -> Image.Image:
    """Draws the curves, checks that nothing else was left, and reads them back."""
    path = directory / "report" / "curves.png"
    report.write_curves(history, path)
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
    assert image.width >= 800
    assert image.height >= 300
    assert image.width > image.height
    return image


def colors(image: Image.Image) -> set[tuple[int, ...]]:
    pixels = image.convert("RGB").getcolors(image.width * image.height)
    assert pixels is not None
    return {color for _, color in pixels}  # type: ignore[misc]


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color.removeprefix("#")))


TRAINING = rgb(report.TRAINING_COLOR)
VALIDATION = rgb(report.VALIDATION_COLOR)


@pytest.mark.parametrize("epochs", [1, 3])
def test_both_curves_are_visible_from_the_first_epoch_on(
    epochs: int, tmp_path: pathlib.Path
) -> None:
    history = {key: values[:epochs] for key, values in HISTORY.items()}
    assert {TRAINING, VALIDATION} <= colors(draw(history, tmp_path))


@pytest.mark.parametrize("history", [{}, {key: [] for key in HISTORY}])
def test_no_epochs_give_an_empty_picture(
    history: dict[str, list[float]], tmp_path: pathlib.Path
) -> None:
    assert not {TRAINING, VALIDATION} & colors(draw(history, tmp_path))


def test_missing_validation_leaves_the_training_curve(tmp_path: pathlib.Path) -> None:
    history = {key: HISTORY[key] for key in ("loss", "accuracy")}
    seen = colors(draw(history, tmp_path))
    assert TRAINING in seen
    assert VALIDATION not in seen


def test_metrics_it_does_not_know_change_nothing(tmp_path: pathlib.Path) -> None:
    plain = draw(HISTORY, tmp_path / "plain")
    more = draw({**HISTORY, "learning_rate": [1e-3] * 3}, tmp_path / "more")
    assert plain.tobytes() == more.tobytes()


def test_epochs_are_counted_from_one_where_they_are_not_given(
    tmp_path: pathlib.Path,
) -> None:
    bare = {key: values for key, values in HISTORY.items() if key != "epoch"}
    given = draw(HISTORY, tmp_path / "given")
    assert draw(bare, tmp_path / "counted").tobytes() == given.tobytes()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_left_out(
    bad: float, tmp_path: pathlib.Path
) -> None:
    some = {**HISTORY, "loss": [0.6, bad, 0.1], "val_accuracy": [0.9, bad, 0.95]}
    assert {TRAINING, VALIDATION} <= colors(draw(some, tmp_path / "some"))
    draw({**HISTORY, "val_loss": [bad] * 3, "loss": [bad] * 3}, tmp_path / "all")


@pytest.mark.parametrize(
    ("higher_is_better", "best"), [(True, 1), (False, 0)], ids=["accuracy", "loss"]
)
def test_best_is_the_first_of_equal_finite_values(
    higher_is_better: bool, best: int
) -> None:
    values = [0.1, 0.9, 0.9, 0.1, math.nan, math.inf, -math.inf]
    assert report._best(values, higher_is_better) == best
    assert report._best([math.nan], higher_is_better) is None


def test_an_earlier_picture_is_replaced(tmp_path: pathlib.Path) -> None:
    empty = draw({}, tmp_path)
    assert draw(HISTORY, tmp_path).tobytes() != empty.tobytes()


def test_a_failed_write_leaves_the_earlier_picture_and_no_temporary_file(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "curves.png"
    report.write_curves(HISTORY, path)
    before = path.read_bytes()

    (tmp_path / f".curves.png.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(lenet_tf.UsageError, match=r"curves.png cannot.*No space left"):
        report.write_curves({}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_pyplot_and_its_settings_are_left_alone(tmp_path: pathlib.Path) -> None:
    settings, figures = dict(matplotlib.rcParams), pyplot.get_fignums()
    draw(HISTORY, tmp_path)
    assert pyplot.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


def test_all_metrics_of_the_rows_get_a_panel(tmp_path: pathlib.Path) -> None:
    """Two lines of panels for three metrics, one of which is missing in a row."""
    rows = [
        {"epoch": 1, "step": 5, "loss": 0.5, "mae": 0.7, "val_mae": 0.8},
        {"epoch": 1, "step": 10, "loss": 0.4, "mae": 0.6, "val_mae": 0.7, "norm": 3.0},
    ]
    path = tmp_path / "report" / "curves.png"
    report.draw_all_curves(rows, path)
    with Image.open(path) as image:
        image.load()
    two = draw({}, tmp_path / "two")
    assert (image.width, image.height) == (two.width, 2 * two.height)
    assert {TRAINING, VALIDATION} <= colors(image)
    report.draw_all_curves([], path)


def test_a_history_gives_the_figure_that_is_written(tmp_path: pathlib.Path) -> None:
    figure = report.plot_history(HISTORY)
    report.write_curves(HISTORY, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == figure._repr_png_()
    assert isinstance(figure, matplotlib.figure.Figure)
    again = pickle.loads(pickle.dumps(figure))
    figure.savefig(tmp_path / "saved.png")
    again.savefig(tmp_path / "again.png")
    saved = [(tmp_path / name).read_bytes() for name in ("saved.png", "again.png")]
    assert saved[0] == saved[1]


def test_a_figure_has_a_panel_for_each_metric_that_is_not_switched_off() -> None:
    def titles(*arguments: Any) -> list[str]:
        axes = report.plot_history(*arguments).axes
        return [a.get_title(loc="left") for a in axes if a.axison]

    history = {"loss": [2.0, 1.0], "val_clean_loss": [3.0, 2.0], "mae": [1.0, 0.5]}
    named = ["Loss by epoch", "Clean loss by epoch", "Mae by epoch"]
    assert titles(history) == named
    assert titles(history, ["mae"], "row") == ["Mae by row"]
    assert titles({**history, "epoch": [1, 1], "step": [5, 10]}, ["mae"]) == [
        "Mae by step"
    ]
    assert titles({}) == []
    many = {f"m{i}": [1.0] for i in range(20)}
    assert titles(many) == [f"M{i} by epoch" for i in range(12)]


def test_a_single_panel_fills_the_picture() -> None:
    one, two = (report.plot_history(HISTORY, m) for m in (["loss"], ["loss", "x"]))
    assert 2 * one.get_figwidth() == two.get_figwidth()
    assert len(one.axes) == 1
