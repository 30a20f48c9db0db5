"""What the tests of several workers share."""

from __future__ import annotations

import pathlib

import idx_writer
import pytest

import lenet_tf


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of train.py for 103 images, of which 7 are held out; 3 steps an epoch."""
    root: pathlib.Path = tmp_path_factory.mktemp("tiny")
    idx_writer.write_idx_dir(root / "idx", train=103, test=21)
    lenet_tf.prepare("mnist", data_dir=root / "data", idx_dir=root / "idx")
    return [
        f"--data_dir={root / 'data'}",
        "--validation_examples=7",
        "--batch_size=32",
        "--optimizer=sgd",
        "--epochs=12",
        "--steps_per_loop=2",
        "--worker_timeout=30",
        "--noreport",
    ]
