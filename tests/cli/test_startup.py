"""How programs start: closed streams, and what TensorFlow says before it ends."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from programs import SCRIPTS

COMMAND = [sys.executable, str(SCRIPTS / "train.py")]
TRAIN = [
    *COMMAND,
    "--validation_examples=59000",
    "--epochs=1",
    "--num_replicas=1",
]


@pytest.mark.parametrize(
    ("closed", "says"), [(">&-", "epoch 1/1"), ("2>&-", "test accuracy")]
)
def test_a_closed_stream_does_not_cost_the_result(
    closed: str, says: str, tmp_path: pathlib.Path
) -> None:
    command = " ".join([*TRAIN, f"--workdir={tmp_path / 'run'}", closed])
    finished = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=120
    )
    shown = finished.stdout + finished.stderr
    assert finished.returncode == 0, shown
    assert "Traceback" not in shown
    assert says in shown
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_examples"] == 10_000


def test_what_ends_tensorflow_at_its_import_is_shown() -> None:
    finished = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_XLA_FLAGS": "--bogus"},
    )
    assert finished.returncode != 0
    (line,) = finished.stderr.splitlines()
    assert "Unknown flag in TF_XLA_FLAGS: --bogus" in line


def test_an_exception_at_the_import_is_shown(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('it is broken')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert finished.returncode == 1
    assert finished.stderr.endswith("ImportError: it is broken\n")


def test_the_start_leaves_no_process_behind() -> None:
    code = "import os, lenet_tf.cli.startup; os.waitpid(-1, os.WNOHANG)"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert "ChildProcessError" in finished.stderr, finished.stderr
