"""Pages: one file, which shows what it is given and asks the network for nothing."""

from __future__ import annotations

import html.parser
import math
import pathlib
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from lenet_tf.errors import UsageError
from lenet_tf.report import (
    Chart,
    Section,
    Table,
    classification_sections,
    figure,
    regression_sections,
    tiles,
    write_page,
)
from lenet_tf.report.history import comparison_charts, history_section

RNG = np.random.default_rng(0)
VOID = {"meta", "img", "link", "br", "path", "use"}


class Reader(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects text and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.addresses.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += [data.strip()] if data.strip() else []


def read(path: pathlib.Path) -> Reader:
    reader = Reader()
    text = path.read_text()
    reader.feed(text)
    assert reader.open == []
    # Nothing is fetched: pictures are in the page, other addresses are places in it.
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in reader.addresses)
    assert "@import" not in text
    outside = re.findall(r"url\((?!#|\"#|'#)", text)
    assert outside == []
    return reader


def page(tmp_path: pathlib.Path, sections: list[Section], **facts: object) -> Reader:
    return read(write_page(tmp_path / "page.html", "A page", sections, facts))


def test_text_from_outside_is_text(tmp_path: pathlib.Path) -> None:
    evil = "<script>alert(1)</script>"
    image = tiles(np.zeros([1, 4, 4], np.uint8), [evil])
    section = Section(evil, [Table([evil], [[evil]]), image])
    reader = read(write_page(tmp_path / "p.html", evil, [section], {evil: evil}))
    assert "script" not in reader.tags
    assert reader.text.count(evil) >= 6


def test_numbers_are_shown_as_one_reads_them(tmp_path: pathlib.Path) -> None:
    rows = [["a", 12345, 0.123456789, True, None, math.nan, 123456.7]]
    reader = page(tmp_path, [Section("S", [Table(list("abcdefg"), rows)])], loss=0.5)
    for text in ("12,345", "0.1235", "yes", "none", "–", "123,457", "0.5"):
        assert text in reader.text


def test_a_page_is_written_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", "A", [])
    page(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "page.html"]


def test_a_classifier_s_sections_tell_its_mistakes(tmp_path: pathlib.Path) -> None:
    labels = np.arange(100) % 4
    probabilities = np.full([100, 4], 0.1)
    probabilities[np.arange(100), labels] = 0.7
    probabilities[7] = [0.9, 0.05, 0.03, 0.02]  # of class 3: the worst
    probabilities[8] = [0.4, 0.5, 0.05, 0.05]  # of class 0
    images = RNG.integers(0, 255, [100, 8, 8, 1], np.uint8)
    names = ["ant", "bee", "cat", "dog"]
    sections = classification_sections(probabilities, labels, names, images)
    reader = page(tmp_path, sections)
    assert "2 of 100 examples are mistaken." in reader.text
    assert reader.tags.count("img") == 2
    texts = [text.replace("\N{NO-BREAK SPACE}", " ") for text in reader.text]
    worst = [text for text in texts if " as " in text and "%" in text]
    assert worst == ["dog (2%) as ant (90%)", "ant (40%) as bee (50%)"]
    assert reader.text.count("24") >= 2  # on the diagonal
    assert "96.00%" in reader.text  # recall of dog
    assert any("ECE, 15 bins" in text for text in reader.text)


def test_many_classes_are_told_by_their_confusions(tmp_path: pathlib.Path) -> None:
    probabilities = np.eye(100)[np.arange(300) % 100]
    labels = np.arange(300) % 100
    labels[:3] = 50
    reader = page(tmp_path, classification_sections(probabilities, labels))
    assert "Most frequent confusions" in reader.text
    assert "img" not in reader.tags


def test_a_classifier_without_mistakes_has_a_page(tmp_path: pathlib.Path) -> None:
    images = np.zeros([3, 4, 4])
    reader = page(
        tmp_path, classification_sections(np.eye(3), np.arange(3), images=images)
    )
    assert "0 of 3 examples are mistaken." in reader.text


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones([3, 2]), np.zeros([4], int), r"must be \[N, classes\] and \[N\]"),
        (np.ones([0, 2]), np.zeros([0], int), "there are no examples"),
        (np.ones([1, 2]), np.array([2]), "they must be 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    probabilities: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        classification_sections(probabilities, labels)


def test_a_regression_s_scores_are_those_of_the_definitions(
    tmp_path: pathlib.Path,
) -> None:
    targets = RNG.normal(size=500)
    predictions = targets + RNG.normal(size=500) * 0.1
    reader = page(tmp_path, regression_sections(predictions, targets))
    errors = predictions - targets
    for score in (
        np.sqrt(np.mean(errors**2)),
        np.abs(errors).mean(),
        1 - np.mean(errors**2) / targets.var(),
    ):
        assert f"{score:.4g}" in reader.text
    assert str(np.abs(errors).argmax()) in reader.text
    assert reader.tags.count("svg") == 2
    two = regression_sections(np.ones([4, 2]), np.ones([4, 2]), ["x", "y"])
    assert [section.title for section in two] == [
        "Predictions of x",
        "Predictions of y",
    ]
    with pytest.raises(UsageError, match="not finite"):
        regression_sections(np.array([np.nan]), np.array([0.0]))


def test_each_metric_of_a_history_has_a_chart() -> None:
    rows = [
        {"epoch": e, "step": 9 * e, "loss": 1 / e, "val_loss": 2 / e, "mae": math.nan}
        for e in (1, 2, 3)
    ]
    charts = history_section(rows).parts
    assert [part.title for part in charts] == ["Loss", "Mae"]  # type: ignore[union-attr]
    assert set(charts[0].colors) == {"training", "validation"}  # type: ignore[union-attr]
    assert history_section([]).note == "There is no row of the history."
    compared = comparison_charts({"a": [rows], "b": [rows, rows[:1]]})
    assert [chart.title for chart in compared] == ["Validation loss", "Mae"]
    assert list(compared[0].colors) == ["a", "b"]


def test_charts_can_be_read_on_a_dark_page() -> None:
    drawn = Figure()
    drawn.subplots().plot([1, 2], color="black")
    svg = figure(drawn)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#ffffff" not in svg
    again = Figure()
    again.subplots().plot([1, 2], color="black")
    assert figure(again) == svg
    assert Chart("Mine", svg).title == "Mine"


def test_images_of_other_kinds_are_refused_or_scaled() -> None:
    made = tiles([np.zeros([4, 4, 3]), np.array([[-1.0, 3.0]])], title="T")
    assert all(t.source.startswith("data:image/png") for t in made.tiles)
    with pytest.raises(UsageError, match=r"has the shape \(2, 2, 2\)"):
        tiles(np.zeros([1, 2, 2, 2]))
    with pytest.raises(UsageError, match="1 captions for 2 images"):
        tiles(np.zeros([2, 2, 2]), ["one"])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.array([[np.nan, 1.0]]), np.array([0]), r"they must be in \[0, 1\]"),
        (np.array([[-3.0, 7.0]]), np.array([0]), "as the softmax of logits is"),
        (np.eye(2), np.array([0.0, 1.0]), "labels are float64: they must be integers"),
    ],
    ids=["NaN", "logits", "float labels"],
)
def test_what_is_no_probability_or_class_is_refused(
    probabilities: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        classification_sections(probabilities, labels)
    with pytest.raises(UsageError, match="3 images for 2 labels"):
        classification_sections(np.eye(2), np.arange(2), images=np.zeros([3, 2, 2]))


def test_sections_of_wrong_parts_are_refused_when_they_are_made() -> None:
    with pytest.raises(UsageError, match="section 'x' has a str among its parts"):
        Section("x", "hello")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a row has 1 values for 2 columns"):
        Table(["a", "b"], [[1, 2], [3]])


def test_a_run_without_validation_is_compared_by_its_training() -> None:
    with_it = [{"epoch": e, "step": e, "loss": 1 / e, "val_loss": 2.0} for e in (1, 2)]
    without = [{"epoch": e, "step": e, "loss": 1 / e} for e in (1, 2)]
    (chart,) = comparison_charts({"a": [with_it], "b": [without]})
    assert chart.note == "Runs without validation are shown by their training."
    assert comparison_charts({"a": [with_it]})[0].note == ""


def test_several_validation_sets_stand_in_the_panels_of_their_metrics() -> None:
    row = {"epoch": 1, "step": 1, "loss": 1.0, "log_loss": 2.0, "val_a_loss": 3.0}
    row |= {"val_b_loss": 4.0, "val_b_log_loss": 5.0, "val_own": 6.0}
    charts = history_section([row]).parts
    assert [part.title for part in charts] == ["Loss", "Log loss", "Own"]  # type: ignore[union-attr]
    assert [list(part.colors) for part in charts] == [  # type: ignore[union-attr]
        ["training", "validation, a", "validation, b"],
        ["training", "validation, b"],
        [],
    ]
