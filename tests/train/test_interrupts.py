"""Ctrl-C in a run that has no StopSignals."""

import os
import pathlib
import signal
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tensorflow as tf
from line_model import checkpoints, make_batches, make_trainer

import lenet_tf


def press(times: int = 1) -> None:
    """Sends what Ctrl-C and the stop button send."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def press_in(step_to_press: int | None) -> Callable[[np.ndarray, np.ndarray], None]:
    """Returns what a step calls: it presses once, at a step or in an evaluation."""
    pressed = False

    def in_step(step: np.ndarray, training: np.ndarray) -> None:
        nonlocal pressed
        due = step == step_to_press if training else step_to_press is None
        if due and not pressed:
            pressed = True
            press()

    return in_step


class PressAt:
    """An action that presses after a step."""

    def __init__(self, step: int, times: int = 1, after_save: bool = False) -> None:
        self._step, self._times, self.after_save = step, times, after_save

    def __call__(self, moment: lenet_tf.Moment) -> None:
        if moment.step == self._step:
            press(self._times)


def same(one: lenet_tf.Trainer, other: lenet_tf.Trainer) -> bool:
    """Whether two runs have the same bits."""
    pairs = zip(one.model.variables, other.model.variables, strict=True)
    return one.record.rows == other.record.rows and all(
        np.array_equal(a.numpy(), b.numpy()) for a, b in pairs
    )


@pytest.fixture(scope="module")
def whole() -> lenet_tf.Trainer:
    """A run on one replica that nobody interrupted."""
    trainer = make_trainer()
    trainer.fit(make_batches(), epochs=4, validation=make_batches())
    return trainer


def test_ctrl_c_within_an_inner_loop_saves_the_run_after_it(
    strategy: tf.distribute.Strategy, tmp_path: pathlib.Path
) -> None:
    stopped = make_trainer(press_in(21), strategy)
    saved = r"stopped by SIGINT; saved .*/step-24: the same command again goes on$"
    with pytest.raises(KeyboardInterrupt, match=saved):
        stopped.fit(make_batches(), epochs=4, saver=lenet_tf.Saver(tmp_path))
    assert checkpoints(tmp_path)[-1] == "step-24"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    expected, resumed = (make_trainer(strategy=strategy) for _ in range(2))
    expected.fit(make_batches(), epochs=4)
    resumed.fit(make_batches(), epochs=4, saver=lenet_tf.Saver(tmp_path))
    assert same(resumed, expected)
    stopped.fit(make_batches(), epochs=4)  # in the same process, as in a notebook
    assert same(stopped, expected)


@pytest.mark.parametrize(
    ("trainer", "action", "newest"),
    [
        (lambda: make_trainer(press_in(None)), None, "pending-10"),
        (make_trainer, PressAt(20), "step-20"),
        (make_trainer, PressAt(18, after_save=True), "step-18"),
        (make_trainer, PressAt(40), "step-40"),
    ],
    ids=["within an evaluation", "before a save", "after a save", "at the end"],
)
def test_ctrl_c_elsewhere_saves_a_run_that_goes_on_bit_for_bit(
    trainer: Callable[[], lenet_tf.Trainer],
    action: PressAt | None,
    newest: str,
    tmp_path: pathlib.Path,
    whole: lenet_tf.Trainer,
) -> None:
    def fit(trainer: lenet_tf.Trainer, actions: Sequence[PressAt] = ()) -> None:
        trainer.fit(
            make_batches(),
            epochs=4,
            validation=make_batches(),
            saver=lenet_tf.Saver(tmp_path),
            actions=actions,
        )

    with pytest.raises(KeyboardInterrupt, match=newest):
        fit(trainer(), [action] if action else [])
    resumed = make_trainer()
    fit(resumed)
    assert same(resumed, whole)


def test_a_second_ctrl_c_ends_at_once_and_saves_nothing(tmp_path: pathlib.Path) -> None:
    saver = lenet_tf.Saver(tmp_path)
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt) as raised:
        make_trainer().fit(
            make_batches(),
            epochs=4,
            saver=saver,
            actions=[PressAt(18, times=2), lambda moment: seen.append(moment.step)],
        )
    assert raised.value.args == ()
    assert (seen[-1], checkpoints(tmp_path)) == (14, ["step-10"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_saver_ctrl_c_says_where_it_stopped() -> None:
    message = r"^stopped by SIGINT at step 18$"
    with pytest.raises(KeyboardInterrupt, match=message) as raised:
        make_trainer().fit(make_batches(), epochs=4, actions=[PressAt(18)])
    assert raised.value.__suppress_context__  # one traceback, not two


def test_a_ctrl_c_when_the_run_has_ended_is_not_lost(tmp_path: pathlib.Path) -> None:
    def enough(moment: lenet_tf.Moment) -> None:
        press()
        raise lenet_tf.Enough("enough")

    saver = lenet_tf.Saver(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make_trainer().fit(make_batches(), epochs=4, saver=saver, actions=[enough])
    assert checkpoints(tmp_path) == ["step-4"]


def test_a_handler_of_the_program_keeps_its_signal() -> None:
    got = []
    previous = signal.signal(signal.SIGINT, lambda signum, frame: got.append(signum))
    try:
        trainer = make_trainer()
        trainer.fit(make_batches(), epochs=2, actions=[PressAt(4)])
    finally:
        signal.signal(signal.SIGINT, previous)
    assert got == [signal.SIGINT]
    assert int(trainer.state.step.numpy()) == 20


def test_fit_works_in_a_thread() -> None:
    trainer, histories = make_trainer(), []

    def work() -> None:
        histories.append(trainer.fit(make_batches(), epochs=1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(histories[0]["loss"]) == 1
