"""Real MNIST at a small size, and runs that nobody disturbed."""

from __future__ import annotations

import pathlib

import pytest
from ends import EXPERIMENT
from idx_writer import idx_bytes
from programs import run

import lenet_tf


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of train.py for 1,000 and 200 real images; 13 steps an epoch."""
    root, splits = tmp_path_factory.mktemp("small"), lenet_tf.load("mnist")
    for name, examples, count in (
        ("train", splits.train, 1000),
        ("t10k", splits.test, 200),
    ):
        for kind, array in (
            ("images-idx3", examples.image[:count, ..., 0]),
            ("labels-idx1", examples.label[:count]),
        ):
            (root / f"{name}-{kind}-ubyte").write_bytes(idx_bytes(array))
    lenet_tf.prepare("mnist", data_dir=root / "data", idx_dir=root)
    return [
        f"--data_dir={root / 'data'}",
        "--validation_examples=200",
        "--num_replicas=1",
        "--steps_per_loop=3",
        "--epochs=3",
        "--noreport",
    ]


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, small_mnist: list[str]
) -> pathlib.Path:
    """The workdir of a run of train.py that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finished = run("train.py", *small_mnist, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    return workdir


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of an experiment that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("experiment") / "run"
    finished = run(EXPERIMENT, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    return workdir
