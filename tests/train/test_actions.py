"""Behaviour of lenet_tf.train.actions: when they run, the epoch's line, history.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import pathlib
import sys
import time
import types
from typing import Any

import pytest

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import (
    Moment,
    When,
    at,
    every_epoch,
    every_row,
    every_seconds,
    every_steps,
)
from lenet_tf.train.actions.history import HistoryFile
from lenet_tf.train.actions.progress import Progress, epoch_line

MOMENT = Moment(
    step=50,
    loop_steps=10,
    steps=400,
    epoch=1,
    epochs=4,
    steps_per_epoch=100,
    examples_per_second=12345.6,
    seconds=10.0,
    row=None,
    metrics={"loss": 0.5, "accuracy": 0.9},
    state=None,
)
ROW = {
    "epoch": 2,
    "step": 200,
    "loss": 0.123456,
    "accuracy": 0.98765,
    "val_loss": 1.5,
    "val_accuracy": 1.0,
}
EPOCH_END = dataclasses.replace(MOMENT, step=200, epoch=2, row=ROW)


def answers(when: When, steps: list[int], start: int = 0) -> list[int]:
    """The steps at which it says yes, when inner loops end there."""
    yes = []
    for before, step in itertools.pairwise([start, *steps]):
        if when(dataclasses.replace(MOMENT, step=step, loop_steps=step - before)):
            yes.append(step)
    return yes


@pytest.fixture
def log() -> list[str]:
    """Lines that were written."""
    return []


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Says yes."""
        return True


def test_at_runs_the_action_on_the_moment_only_when_it_is_due() -> None:
    seen: list[Moment] = []
    guarded = at(lambda moment: moment.step > 10, seen.append)
    late = dataclasses.replace(MOMENT, step=11)
    guarded(dataclasses.replace(MOMENT, step=10))
    guarded(late)
    assert seen == [late]


def test_every_epoch_says_yes_when_an_epoch_has_ended() -> None:
    when = every_epoch()
    assert [when(moment) for moment in (MOMENT, EPOCH_END, MOMENT)] == [
        False,
        True,
        False,
    ]


def test_every_row_says_yes_when_there_is_a_row() -> None:
    in_mid_epoch = dataclasses.replace(MOMENT, row=ROW)
    end_without = dataclasses.replace(EPOCH_END, row=None)
    answers = [every_row()(m) for m in (MOMENT, in_mid_epoch, end_without)]
    assert answers == [False, True, False]


def test_a_row_in_mid_epoch_is_named_by_its_step() -> None:
    moment = dataclasses.replace(EPOCH_END, step=250, epoch=3)
    assert epoch_line(moment).startswith("step 250/400  loss")


def test_every_steps_says_yes_at_multiples() -> None:
    assert answers(every_steps(10), list(range(5, 41, 5))) == [10, 20, 30, 40]


def test_every_steps_says_yes_once_an_interval_when_loops_pass_multiples_by() -> None:
    assert answers(every_steps(10), [7, 14, 21, 28, 35]) == [14, 21, 35]


def test_every_steps_says_yes_once_when_a_loop_passes_several_multiples() -> None:
    assert answers(every_steps(10), [5, 38, 39, 41]) == [38, 41]


def test_every_steps_says_the_same_after_resuming() -> None:
    assert answers(every_steps(10), [106, 112, 115], start=103) == [112]
    assert answers(every_steps(10), [13, 15]) == [13]


def test_an_interval_of_no_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="steps is 0"):
        every_steps(0)


def test_every_steps_and_seconds_count_apart_for_each_action(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = every_steps(10), every_steps(10)
    assert answers(first, [5, 12]) == answers(second, [5, 12]) == [12]
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    early, late = every_seconds(5), every_seconds(5)
    monkeypatch.setattr(time, "monotonic", lambda: 6.0)
    assert (early(MOMENT), late(MOMENT), early(MOMENT)) == (True, True, False)


def test_every_seconds_says_yes_that_long_after_the_last_yes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    when = every_seconds(10)
    due = []
    for now in (100.0, 109.0, 110.0, 111.0, 119.5, 125.0, 134.0, 135.5):
        if when(MOMENT):
            due.append(now)
    assert due == [110.0, 125.0, 135.5]


def test_the_line_of_an_epoch_has_its_metrics_speed_and_time_to_go() -> None:
    # 200 of 400 steps took 10 s, so as long again is to come.
    assert epoch_line(EPOCH_END) == (
        "epoch 2/4  loss 0.1235  accuracy 98.77%  val_loss 1.5000  "
        "val_accuracy 100.00%  12,346 examples/s  ETA 0:10"
    )


@pytest.mark.parametrize(
    ("seconds", "eta"),
    [(0.1, "0:00"), (59.4, "0:59"), (61.0, "1:01"), (7200, "120:00")],
)
def test_time_to_go_is_in_minutes_and_seconds(seconds: float, eta: str) -> None:
    moment = dataclasses.replace(EPOCH_END, seconds=seconds)
    assert epoch_line(moment).endswith(f"ETA {eta}")


def test_a_small_number_keeps_its_digits() -> None:
    moment = dataclasses.replace(EPOCH_END, row={**ROW, "learning_rate": 3.128e-05})
    assert "learning_rate 3.13e-05  " in epoch_line(moment)


def test_the_last_epoch_has_no_time_to_go() -> None:
    moment = dataclasses.replace(EPOCH_END, step=400, epoch=4)
    assert epoch_line(moment).endswith("ETA 0:00")


def test_progress_logs_one_line_an_epoch_and_draws_nothing_without_a_terminal(
    log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(log.append)
    for moment in (MOMENT, EPOCH_END, MOMENT):
        progress(moment)
    assert log == [epoch_line(EPOCH_END)]
    output = capsys.readouterr()
    assert output.out == ""
    assert "\r" not in output.err
    assert "step" not in output.err


def test_progress_draws_a_bar_of_the_epoch_on_a_terminal_and_clears_it(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(log.append)
    progress(MOMENT)
    drawn = terminal.getvalue()
    assert "epoch 1/4" in drawn
    assert "50/100" in drawn
    assert "loss 0.5000, accuracy 0.9000" in drawn
    assert log == []
    progress(dataclasses.replace(MOMENT, step=100, row=ROW))
    assert len(log) == 1
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""
    progress(dataclasses.replace(MOMENT, step=125, epoch=2))
    assert "epoch 2/4" in terminal.getvalue()
    assert "25/100" in terminal.getvalue()


def with_rows(rows: list[dict[str, Any]]) -> Moment:
    """A moment whose trainer has recorded these rows."""
    trainer = types.SimpleNamespace(record=types.SimpleNamespace(rows=rows))
    return dataclasses.replace(EPOCH_END, state=trainer)


def test_history_holds_each_epoch_once_and_every_bit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "history.csv"
    action = HistoryFile(path)
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1 / 3}]
    for count in (1, 2, 2):  # a resumed run may write the same rows again
        action(with_rows(rows[:count]))
    with path.open(newline="") as file:
        read = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert read == rows


def test_history_of_a_resumed_run_replaces_rows_that_were_ahead_of_it(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "history.csv"
    rows = [{"epoch": i, "loss": 1 / i} for i in range(1, 4)]
    HistoryFile(path)(with_rows(rows))
    HistoryFile(path)(with_rows(rows[:2]))
    assert path.read_text() == "epoch,loss\n1,1.0\n2,0.5\n"
