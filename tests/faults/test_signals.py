"""SIGTERM and SIGINT: one whole checkpoint, a line that says how to go on, a status."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import time

import numpy as np
import pytest
from ends import EXPERIMENT, assert_same_end, leftovers, resume, said, start
from idx_writer import idx_bytes
from programs import Program

from lenet_tf.checkpoint.storage import find_damage, newest_whole


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("window", "times", "name"),
    [
        ("trace", 1, "step-0"),  # of the shapes of the values, before the first step
        ("trace", 2, "step-2"),
        ("train", 3, "step-4"),
        ("evaluate", 2, "pending-7"),
        ("save", 2, "step-4"),
    ],
)
def test_a_signal_ends_the_run_in_order_whatever_it_does(
    experiment: pathlib.Path,
    tmp_path: pathlib.Path,
    window: str,
    times: int,
    name: str,
    signum: signal.Signals,
) -> None:
    flags = ["--save_steps=2"] if window == "save" else []
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", f"--slow={window}", *flags)
    said(program, f"in {window}", times)
    before = program.said()
    program.send(signum)
    finished = program.wait()
    assert finished.status == 128 + signum
    # What was said before may lack the end of its last line.
    later = finished.stderr[len(before) :].strip().splitlines()
    assert [line.split()[0] for line in later].count("done") <= 1
    path = str(tmp_path / "checkpoints" / name)
    assert later[-1] == (
        f"stopped by {signum.name}; saved {path}: the same command again goes on"
    )
    assert newest_whole(tmp_path / "checkpoints") == path
    assert find_damage(path) is None
    assert leftovers(tmp_path) == []
    if signum == signal.SIGTERM:  # what is saved does not depend on the signal
        assert f"resumed from {path}\n" in resume(tmp_path, experiment)


def test_a_run_stopped_in_the_same_evaluation_again_and_again_goes_on(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for _ in range(2):
        program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=evaluate")
        said(program, "in evaluate")
        program.send(signal.SIGTERM)
        assert "saved" in program.wait().stderr.splitlines()[-1]
    assert "checkpoints/pending-7\n" in resume(tmp_path, experiment, "--keep=1")


def test_a_second_sigint_waits_for_no_inner_loop(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = [f"--workdir={tmp_path}", "--steps_per_loop=100"]
    program = Program(EXPERIMENT, *flags, "--slow=train")
    said(program, "in train", 2)
    program.send(signal.SIGINT)
    said(program, "in train", 3)  # two of one kind at once would be taken for one
    program.send(signal.SIGINT)
    finished = program.wait()
    assert finished.status == 130
    assert "done" not in finished.stderr
    resume(tmp_path, experiment)


def test_signals_after_the_end_of_a_run_give_no_traceback(
    tmp_path: pathlib.Path,
) -> None:
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    said(program, "in train", 3)
    program.send(signal.SIGTERM)
    program.until(lambda: "stopped by SIGTERM; saved" in program.said())
    while program.alive():  # the interpreter's end takes a while
        with contextlib.suppress(ProcessLookupError):
            program.send(signal.SIGTERM)
        time.sleep(0.001)
    finished = program.wait()
    assert finished.status in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert "Traceback" not in finished.stderr


def test_signals_at_the_beginning_end_train_in_order_too(
    small_mnist: list[str], undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Start-up, data, model, tracing: whatever it is that each delay meets."""
    workdir = tmp_path / "run"
    for i, delay in enumerate((0.0, 0.2, 0.4, 0.6, 0.9)):
        signum = (signal.SIGTERM, signal.SIGINT)[i % 2]
        program = start(small_mnist, workdir)
        time.sleep(delay)
        program.send(signum)
        finished = program.wait()
        assert "Traceback" not in finished.stderr
        if finished.status == -signum:  # before the program's own handlers
            assert finished.stderr == ""
        elif finished.status:
            assert finished.status == 128 + signum
            assert f"stopped by {signum.name}" in finished.stderr.splitlines()[-1]
    finished = start(small_mnist, workdir).wait()
    assert finished.status == 0, finished.stderr
    assert_same_end(workdir, undisturbed)


def test_a_signal_while_data_is_prepared_leaves_nothing_of_it(
    tmp_path: pathlib.Path,
) -> None:
    folder, data = tmp_path / "idx", tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 20_000), ("t10k", 10)):
        images, labels = np.zeros([count, 28, 28], np.uint8), np.zeros(count, np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    program = Program("prepare_data.py", f"--data_dir={data}", f"--idx_dir={folder}")
    program.until(lambda: list(data.glob("mnist/incomplete*")))
    program.send(signal.SIGTERM)
    finished = program.wait()
    assert finished.status == 143, finished.stderr
    assert finished.stderr.splitlines()[-1] == "stopped by SIGTERM"
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    assert list(data.glob("mnist/*")) == []
