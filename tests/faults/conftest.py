"""What the fault tests share: real MNIST at a small size, and ends to compare."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import pytest
import tensorflow as tf
from idx_writer import idx_bytes
from programs import Program, run

import lenet_tf

EXPERIMENT = str(pathlib.Path(__file__).parent / "experiment.py")


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


def end_of(workdir: pathlib.Path) -> dict[str, object]:
    """All that a run has come to, bit for bit, but for the time it took."""
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    assert path is not None
    end: dict[str, object] = {"checkpoint": pathlib.Path(path).name}
    reader = tf.train.load_checkpoint(path)
    for key in reader.get_variable_to_shape_map():
        value = reader.get_tensor(key)
        if key.startswith("record/"):
            end[key] = json.loads(value)["rows"]
        elif key != "_CHECKPOINTABLE_OBJECT_GRAPH":
            end[key] = value if isinstance(value, bytes) else value.tobytes()
    end["history"] = (workdir / "history.csv").read_bytes()
    end["best"] = (workdir / "best" / "best.json").read_bytes()
    return end


def assert_same_end(workdir: pathlib.Path, other: pathlib.Path) -> None:
    """Holds two runs to have come to the same, and to have left no half files."""
    ours, theirs = end_of(workdir), end_of(other)
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if ours[key] != theirs[key]] == []
    assert leftovers(workdir) == []


def leftovers(workdir: pathlib.Path) -> list[str]:
    """Files that a finished write would have renamed or removed."""
    return [
        str(path.relative_to(workdir))
        for path in workdir.rglob("*")
        if path.name.endswith((".tmp", "_temp")) or ".tempstate" in path.name
    ]


def steps_of(workdir: pathlib.Path) -> list[int]:
    """Steps of the checkpoints whose index is there, the oldest first."""
    names = [path.stem for path in (workdir / "checkpoints").glob("*.index")]
    return sorted(int(name.split("-")[1]) for name in names)


def start(flags: Sequence[str], workdir: pathlib.Path, *more: str) -> Program:
    """Starts train.py on small MNIST."""
    return Program("train.py", *flags, f"--workdir={workdir}", *more)


def said(program: Program, line: str, times: int = 1) -> None:
    """Waits until a program has said a line so often."""
    program.until(lambda: program.said().splitlines().count(line) >= times)


def resume(workdir: pathlib.Path, experiment: pathlib.Path, *flags: str) -> str:
    """Runs the experiment to its end, which must be the undisturbed one."""
    finished = run(EXPERIMENT, f"--workdir={workdir}", *flags)
    assert finished.status == 0, finished.stderr
    assert_same_end(workdir, experiment)
    return finished.stderr
