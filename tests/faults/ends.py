"""What runs have come to, and how they are held to each other."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from programs import Program, run

EXPERIMENT = str(pathlib.Path(__file__).parent / "experiment.py")


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
