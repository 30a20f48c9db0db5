"""The page to draw on, in a real browser."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Iterator

import pytest
from browser import BROWSER, DRIVER, Browser
from drawn import MAIN, drawing, png
from programs import Program

import lenet_tf
from lenet_tf.demo import DemoServer

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
)

ONE = [(0.52, 0.2), (0.51, 0.4), (0.5, 0.6), (0.49, 0.8)]
SEVEN = [
    (0.27, 0.24),
    (0.5, 0.23),
    (0.72, 0.22),
    (0.6, 0.45),
    (0.5, 0.65),
    (0.45, 0.82),
]
CONTROL, ESCAPE = "\ue009", "\ue00c"
CALM = "Nothing is drawn yet"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, server: DemoServer) -> Iterator[Browser]:
    browser.open(server.url)
    browser.until(lambda: browser.text(".answer") == CALM)
    yield browser
    assert browser.complaints() == []


def shown(page: Browser) -> list[str]:
    """The answers of both runs."""
    return page.run(
        "return [...document.querySelectorAll('.answer')].map((e) => e.innerText)"
    )


def painted(page: Browser, selector: str) -> list[bool]:
    """Whether each of the canvases has more than one shade."""
    return page.run(
        "return [...document.querySelectorAll(arguments[0])].map((canvas) => {"
        "  const c = canvas.getContext('2d');"
        "  const d = c.getImageData(0, 0, canvas.width, canvas.height).data;"
        "  return new Set(d.filter((_, i) => i % 4 === 0)).size > 1"
        "})",
        selector,
    )


@pytest.mark.parametrize("pointer", ["mouse", "touch", "pen"])
def test_a_drawn_digit_is_told(pointer: str, page: Browser) -> None:
    for digit, stroke in (("1", ONE), ("7", SEVEN)):
        page.draw("#board", stroke, pointer)
        page.until(lambda digit=digit: shown(page) == [digit, digit])
        page.until(lambda digit=digit: f"few: {digit}, " in page.text("#spoken"))
        assert page.text(".first .name") == digit
        assert len(page.text(".bars").split("%")) == 11
        assert any(painted(page, ".image canvas"))
        assert len(painted(page, "article:first-child .c1 canvas")) == 6
        assert len(painted(page, "article:first-child .c3 canvas")) == 16
        page.press(ESCAPE)
        assert shown(page) == [CALM, CALM]
        assert not any(painted(page, "canvas"))


def test_the_answer_comes_before_the_stroke_ends(page: Browser) -> None:
    page.draw("#board", SEVEN, lift=False)
    page.until(lambda: shown(page) == ["7", "7"])


def test_undo_takes_one_stroke_back(page: Browser) -> None:
    page.draw("#board", ONE)
    page.until(lambda: shown(page) == ["1", "1"])
    for undo in (
        lambda: page.press(CONTROL, "z"),
        lambda: page.run("document.querySelector('#undo').click()"),
    ):
        page.draw("#board", [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)])
        page.until(lambda: shown(page) != ["1", "1"])
        undo()
        page.until(lambda: shown(page) == ["1", "1"])
    page.run("document.querySelector('#clear').click()")
    assert shown(page) == [CALM, CALM]
    page.press(CONTROL, "z")
    assert shown(page) == [CALM, CALM]


def test_a_picture_from_a_file(page: Browser, tmp_path: pathlib.Path) -> None:
    digit = str(lenet_tf.load("mnist").test.label[0])
    (tmp_path / "digit.png").write_bytes(png(drawing(0)))
    (tmp_path / "text.png").write_text("no picture")
    page.choose("#file", tmp_path / "digit.png")
    page.until(lambda: shown(page) == [digit, digit])
    page.choose("#file", tmp_path / "text.png")
    page.until(lambda: page.text("#problem").startswith("text.png is not a picture"))
    page.draw("#board", ONE)  # takes the place of the picture
    page.until(lambda: shown(page) == ["1", "1"])
    assert page.text("#problem") == ""
    page.press(CONTROL, "z")
    page.until(lambda: shown(page) == [digit, digit])


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_is_no_wider_than_the_screen(width: int, page: Browser) -> None:
    page.screen(width, 700)
    page.draw("#board", SEVEN)
    page.until(lambda: shown(page) == ["7", "7"])
    assert page.run("return document.documentElement.scrollWidth") <= width


def test_a_server_that_ended_is_told(browser: Browser, trained: pathlib.Path) -> None:
    program = Program(MAIN, "demo", f"--workdir={trained}", "--port=0")
    program.until(lambda: program.said("stdout").endswith("/\n"))
    browser.open(program.said("stdout").strip())
    browser.until(lambda: browser.text(".answer") == CALM)
    program.send(signal.SIGTERM)
    program.wait()
    browser.draw("#board", ONE)
    browser.until(lambda: "does not answer" in browser.text("#problem"))
    assert shown(browser) == ["No answer"]
    assert all("ERR_CONNECTION_REFUSED" in line for line in browser.complaints())
