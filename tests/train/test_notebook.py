"""A person at a notebook or a terminal: progress, the stop button, Ctrl-C."""

import fcntl
import os
import pathlib
import signal
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from jupyter_client.manager import start_new_kernel

import lenet_tf
from lenet_tf.train import at, every_row

# The kernel runs this, too.
SETUP = """
import numpy as np
import tensorflow as tf

import lenet_tf


class Line(tf.Module):
    def __init__(self):
        super().__init__(name="line")
        self.w = tf.Variable(0.0, name="w")


def make_trainer(in_step=None, strategy=None):
    def forward(model, batch, training):
        loss = (model.w * batch["x"] - batch["y"]) ** 2
        if in_step is None:
            return {"loss": loss}
        arguments = [batch["seed"][1], training]
        with tf.control_dependencies([tf.numpy_function(in_step, arguments, [])]):
            return {"loss": tf.identity(loss)}

    with (strategy or tf.distribute.get_strategy()).scope():
        model = Line()
    optimizer = lenet_tf.Adam(0.01)
    options = {"strategy": strategy, "steps_per_loop": 4}
    return lenet_tf.Trainer(model, optimizer, forward, **options)


def make_batches():
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    return lenet_tf.Batches({"x": x, "y": 3 * x}, 4, seed=0)
"""
names: dict[str, Any] = {}
exec(SETUP, names)
make_trainer, make_batches = names["make_trainer"], names["make_batches"]
# An epoch has 10 steps, in inner loops of 4, 4 and 2.


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


def checkpoints(folder: pathlib.Path) -> list[str]:
    return sorted(path.stem for path in (folder / "checkpoints").glob("*.index"))


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
    options = {"epochs": 4, "validation": make_batches()}
    with pytest.raises(KeyboardInterrupt, match=newest):
        trainer().fit(
            make_batches(),
            saver=lenet_tf.Saver(tmp_path),
            actions=[action] if action else [],
            **options,
        )
    resumed = make_trainer()
    resumed.fit(make_batches(), saver=lenet_tf.Saver(tmp_path), **options)
    assert same(resumed, whole)


def test_a_second_ctrl_c_ends_at_once_and_saves_nothing(tmp_path: pathlib.Path) -> None:
    saver, seen = lenet_tf.Saver(tmp_path), []
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
    with pytest.raises(KeyboardInterrupt, match=r"^stopped by SIGINT at step 18$"):
        make_trainer().fit(make_batches(), epochs=4, actions=[PressAt(18)])


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


class Kernel:
    """A Jupyter kernel in a process of its own, as a notebook has it."""

    def __init__(self) -> None:
        self._manager, self._client = start_new_kernel(kernel_name="python3")

    def run(self, cell: str, stop_at: str | None = None) -> list[dict[str, Any]]:
        """Runs a cell; returns the contents of its messages.

        Args:
          cell: Source.
          stop_at: Name of a file. When the cell prints "ready", the stop button is
            pressed, and then the file is made.
        """
        messages = []

        def see(message: dict[str, Any]) -> None:
            messages.append(message["content"])
            if stop_at and "ready" in message["content"].get("text", ""):
                self._manager.interrupt_kernel()
                pathlib.Path(stop_at).touch()

        self._client.execute_interactive(cell, output_hook=see, timeout=60)
        return messages

    def text(self, cell: str, stop_at: str | None = None) -> str:
        """Runs a cell; returns what it printed, and its error."""
        found = self.run(cell, stop_at)
        texts = [m["text"] for m in found if m.get("name") == "stdout"]
        errors = [m["evalue"] for m in found if "evalue" in m]
        return "".join(texts + errors)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    kernel.run(SETUP)
    yield kernel
    kernel.close()


def test_a_notebook_shows_a_widget_and_a_line_for_each_epoch(kernel: Kernel) -> None:
    messages = kernel.run("_ = make_trainer().fit(make_batches(), epochs=2)")
    shown = [m["data"] for m in messages if "text/plain" in m.get("data", {})]
    assert len(shown) == 2
    assert all("application/vnd.jupyter.widget-view+json" in data for data in shown)
    lines = "".join(m["text"] for m in messages if m.get("name") == "stdout")
    assert [lines.count(f"epoch {i}/2  loss ") for i in (1, 2)] == [1, 1]
    assert (
        kernel.text("make_trainer().fit(make_batches(), epochs=1, progress=False);")
        == ""
    )


def test_the_stop_button_saves_and_returns(
    kernel: Kernel, tmp_path: pathlib.Path
) -> None:
    """It is pressed in the middle of the inner loop of steps 21 to 24."""
    stopped = kernel.text(
        f"""
import os, time
from lenet_tf import Saver

def wait(step, training):
    if step == 21:
        print("ready", flush=True)
        while not os.path.exists({str(tmp_path / "pressed")!r}):
            time.sleep(0.01)

trainer = make_trainer(wait)
run = {{"epochs": 4, "progress": False}}
history = trainer.fit(make_batches(), saver=Saver({str(tmp_path)!r}), **run)
print(len(history["loss"]), int(trainer.state.step.numpy()))
        """,
        stop_at=str(tmp_path / "pressed"),
    )
    assert stopped == (
        f"ready\nstopped by SIGINT; saved {tmp_path}/checkpoints/step-24: "
        "the same cell again goes on\n2 24\n"
    )
    assert checkpoints(tmp_path)[-1] == "step-24"
    same = kernel.text(
        f"""
resumed, whole = make_trainer(), make_trainer()
resumed.fit(make_batches(), saver=Saver({str(tmp_path)!r}), **run)
whole.fit(make_batches(), **run)
assert trainer.fit(make_batches(), **run) == whole.record.history()
for other in (resumed, trainer):
    assert other.record.rows == whole.record.rows
    assert other.model.w.numpy() == whole.model.w.numpy()
print("same")
        """
    )
    assert same == "same\n"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_strategy_that_comes_too_late_asks_for_a_new_kernel(kernel: Kernel) -> None:
    assert kernel.text("lenet_tf.make_strategy(num_replicas=2)").endswith(
        "restart the kernel, then call make_strategy before any other TensorFlow "
        "operation"
    )
