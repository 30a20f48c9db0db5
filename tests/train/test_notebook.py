"""Training in a notebook: a real kernel runs its cells."""

import base64
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import line_model
import pytest
from jupyter_client.manager import start_new_kernel
from line_model import checkpoints
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

SETUP = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(line_model.__file__).parent)!r})
import lenet_tf
from line_model import make_batches, make_trainer
"""


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


@pytest.mark.parametrize("end", ["epochs=2", "steps=14"])
def test_the_bars_leave_nothing_in_the_file_of_a_notebook(end: str) -> None:
    cell = new_code_cell(f"{SETUP}_ = make_trainer().fit(make_batches(), {end})")
    NotebookClient(new_notebook(cells=[cell]), kernel_name="python3").execute()
    displays = [o.data for o in cell.outputs if o.output_type == "display_data"]
    assert displays == [{}, {}]
    lines = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
    assert lines.count("  loss ") == 2


@pytest.mark.parametrize("pyplot", [False, True], ids=["alone", "after pyplot"])
def test_a_notebook_shows_the_figure_of_a_history(pyplot: bool, kernel: Kernel) -> None:
    if pyplot:
        kernel.run("%matplotlib inline")
    cell = "lenet_tf.experiment.plot_history({'loss': [2.0, 1.0]})"
    data = [m["data"] for m in kernel.run(cell) if "data" in m]
    assert [*map(set, data)] == [{"image/png", "text/plain"}]
    with Image.open(io.BytesIO(base64.b64decode(data[0]["image/png"]))) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


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
