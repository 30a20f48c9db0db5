"""A trained network, and a server that shows it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from drawn import serving
from programs import run

from lenet_tf.demo import Answers, DemoServer
from lenet_tf.experiment import load_network
from lenet_tf.experiment.network import Network


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on some real digits that knows most others."""
    workdir = tmp_path_factory.mktemp("runs") / "few"
    flags = ["--recipe=sprint", "--validation_examples=45000", "--num_replicas=1"]
    finished = run("train.py", *flags, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    return workdir


@pytest.fixture(scope="session")
def network(trained: pathlib.Path) -> Network:
    return load_network(trained)


@pytest.fixture(scope="session")
def answers(network: Network) -> Answers:
    return Answers({"few": network, "again": network})


@pytest.fixture(scope="session")
def server(answers: Answers) -> Iterator[DemoServer]:
    with serving(DemoServer(answers, port=0)) as server:
        yield server
