"""What the tests of several formats share."""

from __future__ import annotations

import pathlib

import pytest
from programs import run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on few real digits with averaged weights."""
    workdir = tmp_path_factory.mktemp("run")
    flags = ["--validation_examples=58000", "--epochs=2", "--num_replicas=1"]
    finished = run("train.py", *flags, "--ema=0.9", f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    return workdir
