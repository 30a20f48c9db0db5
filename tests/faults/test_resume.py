"""A run that is killed and started again ends bit for bit like one that was not."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest
from ends import (
    EXPERIMENT,
    assert_same_end,
    resume,
    said,
    start,
    steps_of,
)
from programs import Program


def kill(program: Program) -> None:
    """Kills it where it is."""
    program.send(signal.SIGKILL)
    assert program.wait().status == -signal.SIGKILL


def test_train_is_killed_at_four_moments_and_ends_the_same(
    small_mnist: list[str],
    undisturbed: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    workdir = tmp_path / "run"
    checkpoints, history = workdir / "checkpoints", workdir / "history.csv"
    more = ["--save_steps=4", "--steps_per_loop=2"]
    for i, reached in enumerate(
        (
            (workdir / "config.json").exists,  # it traces
            lambda: steps_of(workdir)[-1:] > [4],  # in mid epoch
            lambda: history.exists() and len(history.read_bytes().splitlines()) == 3,
            (checkpoints / "step-39.index").exists,  # the last step, its row to come
        )
    ):
        background = "--background_save" if i % 2 else "--nobackground_save"
        program = start(small_mnist, workdir, *more, background)
        program.until(reached)
        kill(program)
    finished = start(small_mnist, workdir, *more).wait()
    assert finished.status == 0, finished.stderr
    assert "resumed from" in finished.stderr
    assert_same_end(workdir, undisturbed)


@pytest.mark.parametrize(
    ("slow", "line", "times", "resumed", "background"),
    [
        ("trace", "in trace", 1, None, False),
        ("train", "done 9", 1, "step-9", False),
        ("evaluate", "in evaluate", 3, "step-6", False),
        ("save", "in save", 1, None, False),
        ("save", "in save", 4, None, False),
        ("save", "in save", 4, None, True),
    ],
)
def test_an_experiment_with_dropout_goes_on_in_other_loops(
    experiment: pathlib.Path,
    tmp_path: pathlib.Path,
    slow: str,
    line: str,
    times: int,
    resumed: str | None,
    background: bool,
) -> None:
    """Killed while tracing, training, evaluating and saving; resumed with 3 a loop."""
    flags = ["--save_steps=2", *(["--background"] if background else [])]
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", f"--slow={slow}", *flags)
    said(program, line, times)
    kill(program)
    stderr = resume(tmp_path, experiment, "--steps_per_loop=3")
    if resumed:
        assert f"checkpoints/{resumed}\n" in stderr


@pytest.mark.parametrize(("step", "before"), [(7, None), (14, "step-7")])
def test_a_kill_between_data_and_index_of_a_checkpoint_costs_only_that_one(
    experiment: pathlib.Path, tmp_path: pathlib.Path, step: int, before: str | None
) -> None:
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    said(program, "in train", step - 5)
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    index = tmp_path / "checkpoints" / f"step-{step}.index"
    os.mkfifo(index)  # who opens it to write waits for a reader
    data = index.with_suffix(".data-00000-of-00001")
    program.until(data.exists)
    kill(program)
    index.unlink()
    stderr = resume(tmp_path, experiment)
    assert f"step-{step}: its index file is missing" in stderr
    if before:
        assert f"checkpoints/{before}\n" in stderr
    else:
        assert "the first save was cut short, starting afresh" in stderr


def test_a_kill_between_checkpoint_and_history_row_loses_no_row(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    said(program, "in train")
    os.mkfifo(tmp_path / f".history.csv.{program.pid}.tmp")
    said(program, "done 7")
    kill(program)
    assert steps_of(tmp_path) == [7]
    assert not (tmp_path / "history.csv").exists()
    assert "checkpoints/step-7\n" in resume(tmp_path, experiment)


def test_a_kill_between_best_checkpoint_and_latest_loses_nothing(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    said(program, "in train")
    (tmp_path / "best").mkdir()
    os.mkfifo(tmp_path / "best" / f".best.json.{program.pid}.tmp")
    program.until((tmp_path / "best" / "step-7.index").exists)
    kill(program)
    resume(tmp_path, experiment)


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_ends_the_run_with_one_line_and_it_goes_on_later(
    experiment: pathlib.Path, tmp_path: pathlib.Path, background: bool
) -> None:
    flags = [f"--workdir={tmp_path}", *(["--background"] if background else [])]
    # A little more than the first checkpoint: the record of the epochs grows.
    size = (experiment / "checkpoints" / "step-7.data-00000-of-00001").stat().st_size
    full = Program(EXPERIMENT, *flags, file_size=size + 50).wait()
    assert full.status == 1
    assert "Traceback" not in full.stderr
    (error,) = [s for s in full.stderr.splitlines() if s.startswith("error: ")]
    assert "/step-14 cannot be saved, the one before it is whole" in error
    assert "File too large" in error
    assert steps_of(tmp_path) == [7]
    assert "checkpoints/step-7\n" in resume(tmp_path, experiment)
