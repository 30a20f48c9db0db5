"""What the programs tell before a run, and in which colours."""

from __future__ import annotations

import os
import pathlib
import pty
import subprocess
import sys

import pytest
from programs import run

import lenet_tf

MAIN = str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py")


def on_a_terminal(*command: str, **environment: str) -> str:
    """Returns what a program writes to a terminal."""
    reader, writer = pty.openpty()
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "lenet_tf", *command],
        stdout=writer,
        stderr=writer,
        env={**known, "TERM": "xterm", **environment},
    ):
        os.close(writer)
        chunks = []
        try:
            while chunk := os.read(reader, 4096):
                chunks.append(chunk)
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(reader)
    return b"".join(chunks).decode()


@pytest.mark.parametrize(
    ("environment", "colourful"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], colourful: bool, tmp_path: pathlib.Path
) -> None:
    said = on_a_terminal("evaluate", f"--workdir={tmp_path}", **environment)
    assert ("\033[31;1merror:\033[0m workdir" in said) == colourful
    assert ("\033" in said) == colourful
    assert "holds no run" in said


def test_a_dry_run_tells_the_run_and_writes_nothing(
    few_digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "run"
    flags = [f"--data_dir={few_digits}", f"--workdir={workdir}", "--num_replicas=1"]
    flags += ["--validation_examples=500", "--epochs=2", "--loops", "--tensorboard"]
    finished = run(MAIN, "train", *flags, "--dry_run")
    assert (finished.status, finished.stdout) == (0, "")
    lines = [line.split(maxsplit=2)[2] for line in finished.stderr.splitlines()]
    assert lines[0] == (
        "data       mnist: 2,000 examples to train, 500 to validate, 300 to test"
    )
    assert lines[1].startswith(
        "network    LeNet-5 with 61,706 parameters in float32, 1"
    )
    assert lines[2].startswith("steps      2 epochs of 32 steps with 64 examples each")
    assert lines[2].endswith("64 in all")
    assert lines[3].startswith(f"directory  {workdir}: checkpoints of 74")
    assert len(lines) == 4
    assert not workdir.exists()

    (tmp_path / "file").touch()
    place = tmp_path / "file" / "run"
    refused = run(MAIN, "train", *flags, "--dry_run", f"--workdir={place}")
    assert refused.status != 0
    assert f"workdir {place} cannot be made in {place.parent}" in refused.stderr

    trained = run(MAIN, "train", *flags, "--epochs=1")
    assert trained.status == 0, trained.stderr
    assert [line.split(maxsplit=2)[2] for line in trained.stderr.splitlines()][1] == (
        lines[1]
    )
    assert "\033" not in trained.stderr + trained.stdout
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    again = run(MAIN, "train", *flags, "--dry_run")
    assert again.stderr.splitlines()[2].endswith("64 in all; goes on from step-32")
    other = run(MAIN, "train", *flags, "--dry_run", "--batch_size=5")
    assert other.status == 1
    assert "batch_size (there 64, now 5)" in other.stderr
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_checkpoints_are_as_large_as_was_told(
    few_digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = [f"--data_dir={few_digits}", f"--workdir={tmp_path}", "--epochs=1"]
    flags += ["--validation_examples=500", "--num_replicas=1", "--ema=0.9"]
    finished = run(MAIN, "train", *flags)
    assert finished.status == 0, finished.stderr
    (data,) = (tmp_path / "checkpoints").glob("*.data-*")
    told = float(finished.stderr.split("checkpoints of ")[1].split(" kB")[0]) * 1000
    assert 0.99 < data.stat().st_size / told < 1.02
