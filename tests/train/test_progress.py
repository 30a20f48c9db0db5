"""The progress that fit shows."""

import fcntl
import os
import struct
import sys
import termios
import threading

import pytest
from line_model import make_batches, make_trainer

import lenet_tf
from lenet_tf.train import at, every_row


class Terminal:
    """A terminal in place of stderr, from `open` on; `text` closes it and reads it.

    A fixture cannot open it: pytest sets stderr anew before it calls the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._chunks: list[bytes] = []

    def open(self) -> None:
        self._reader, writer = os.openpty()
        # A new one has no columns, and tqdm draws a bar of that width.
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
        self._stderr = os.fdopen(writer, "w")
        self._monkeypatch.setattr(sys, "stderr", self._stderr)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._reader, 4096):
                self._chunks.append(chunk)
        except OSError:  # Linux's way to say that the other end is closed
            return

    def text(self) -> str:
        self._monkeypatch.undo()
        self._stderr.close()
        self._thread.join()
        os.close(self._reader)
        return b"".join(self._chunks).decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


def test_fit_shows_a_bar_and_lines_in_a_terminal(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.open()
    make_trainer().fit(make_batches(), epochs=2)
    shown = terminal.text()
    assert "epoch 2/2:  40%" in shown
    assert [shown.count(f"epoch {i}/2  loss ") for i in (1, 2)] == [1, 1]
    assert capsys.readouterr().out == ""  # it may lead into a file


@pytest.mark.parametrize(("progress", "wrapped"), [(None, True), (True, False)])
def test_a_progress_that_is_given_is_the_only_one(
    progress: bool | None, wrapped: bool, terminal: Terminal
) -> None:
    terminal.open()
    lines: list[str] = []
    given = lenet_tf.Progress(lines.append)
    action = at(every_row(), given) if wrapped else given
    make_trainer().fit(make_batches(), epochs=2, actions=[action], progress=progress)
    assert len(lines) == 2
    assert "epoch 1/2  loss" not in terminal.text()


def test_fit_can_be_silent_in_a_terminal(terminal: Terminal) -> None:
    terminal.open()
    make_trainer().fit(make_batches(), epochs=1, progress=False)
    assert terminal.text() == ""


def test_without_a_terminal_fit_shows_nothing_unless_it_is_asked_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_trainer().fit(make_batches(), epochs=1)
    assert capsys.readouterr() == ("", "")
    make_trainer().fit(make_batches(), epochs=1, progress=True)
    out, err = capsys.readouterr()
    assert out.startswith("epoch 1/1  loss ") and out.count("\n") == 1
    assert err == ""


def test_fit_works_where_there_is_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert len(make_trainer().fit(make_batches(), epochs=1)["loss"]) == 1
