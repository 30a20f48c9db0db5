"""Runs the experiment of this folder in lenet_tf and in its peers, and compares.

    python benchmarks/peers                                # all that are installed
    python benchmarks/peers --torch_python=venv/bin/python # where Lightning is
    python benchmarks/peers --only=ours,keras_loop --examples=35 --epochs=3

Each run is a process of its own, or two for Lightning and Accelerate with two replicas.
It prints a Markdown table of measured figures: differences from NumPy in float64, from
a run on one replica, and from a run that was not interrupted. Killed runs are killed by
SIGKILL, and started again with the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import exact
import numpy as np
import problem
from table import Row, code_lines, history_faults, markdown, number

HERE = pathlib.Path(__file__).resolve().parent
SAVE_EVERY = 3

Measures = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program of this folder.

    Attributes:
      title: Heading of its column.
      packages: Packages that it needs, whose versions are told.
      processes: Whether a replica is a process, and not a device of one process.
    """

    title: str
    packages: tuple[str, ...]
    processes: bool = False


PEERS = {
    "ours": Peer("lenet_tf", ("tensorflow",)),
    "keras_loop": Peer("Keras, own loop", ("tensorflow", "keras")),
    "lightning_fit": Peer("Lightning", ("torch", "lightning", "torchdata"), True),
    "accelerate_loop": Peer("Accelerate", ("torch", "accelerate"), True),
}
_VERSIONS = (
    "import importlib.metadata as m, sys; "
    "print(*(f'{p} {m.version(p)}' for p in sys.argv[1:]), sep=', ')"
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to; see `problem.finish`."""

    weights: problem.Arrays
    loss: float
    counted: int
    rows: Sequence[Row]

    def differs(self, other: problem.Arrays, names: Sequence[str] = ()) -> float:
        """Returns the largest difference of a weight."""
        names = names or list(self.weights)
        return max(float(np.abs(self.weights[n] - other[n]).max()) for n in names)


class Program:
    """Runs a program in folders of its own, with the same sizes each time."""

    def __init__(
        self, name: str, python: str, sizes: Sequence[str], folder: pathlib.Path
    ) -> None:
        self.name, self.peer = name, PEERS[name]
        self._python, self._sizes, self._folder = python, sizes, folder
        self._runs = 0

    def versions(self) -> str | None:
        """Returns the versions of its packages, or None if one is not installed."""
        command = [self._python, "-c", _VERSIONS, *self.peer.packages]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else None

    def run(self, replicas: int, *flags: str, kill_at: int | None = None) -> Result:
        """Runs it to its end; with `kill_at` it is killed on the way, and resumed."""
        self._runs += 1
        directory = self._folder / f"{self.name}_{self._runs}"
        directory.mkdir()
        if kill_at is not None:
            self._start(directory, replicas, *flags, f"--kill_at={kill_at}")
            if (directory / "found.json").exists():
                raise RuntimeError(f"{self.name} was not killed at step {kill_at}")
        self._start(directory, replicas, *flags)
        if not (directory / "found.json").exists():
            raise RuntimeError(
                f"{self.name} failed:\n{(directory / 'log').read_text()[-2000:]}"
            )
        found = json.loads((directory / "found.json").read_text())
        with np.load(directory / "weights.npz") as file:
            weights = dict(file)
        evaluated = found["evaluated"]
        return Result(
            weights, evaluated["loss"], int(evaluated["examples"]), found["rows"]
        )

    def _start(self, directory: pathlib.Path, replicas: int, *flags: str) -> None:
        launcher = []
        if self.name == "accelerate_loop":
            launcher = ["-m", "torch.distributed.run", "--standalone"]
            launcher += [f"--nproc_per_node={replicas}"]
        with (directory / "log").open("a") as log:
            subprocess.run(
                [
                    self._python,
                    *launcher,
                    str(HERE / f"{self.name}.py"),
                    f"--directory={directory}",
                    f"--replicas={replicas}",
                    *self._sizes,
                    *flags,
                ],
                stdout=log,
                stderr=log,
                check=False,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                start_new_session=True,  # a group of its own, which is killed
            )


def compare(program: Program, options: argparse.Namespace) -> Measures:
    """Runs a program in all ways; returns measure -> value, as the table shows it."""
    versions = program.versions()
    if versions is None:
        return {}
    lines = code_lines((HERE / f"{program.name}.py").read_text())
    return {
        "Versions": versions,
        "Lines of code": str(lines),
        **exactness(program, options),
        **resumption(program, options),
    }


def exactness(program: Program, options: argparse.Namespace) -> Measures:
    """Compares runs on one replica and on two with NumPy, and with each other."""
    train, held_out = problem.examples(options)
    reference = exact.train(
        train,
        problem.initial_weights(),
        options.epochs,
        options.batch_size,
        unbiased=program.peer.processes,  # PyTorch's
    )
    both = [program.run(replicas) for replicas in (1, 2)]
    measures = {
        "Weights − NumPy's": pair(r.differs(reference, exact.TRAINED) for r in both),
        **{
            f"Moving {name} − NumPy's": pair(r.differs(reference, [name]) for r in both)
            for name in ("mean", "variance")
        },
        "Loss of the held-out set − NumPy's": pair(
            abs(r.loss - exact.loss(r.weights, held_out)) for r in both
        ),
        f"Examples counted, of {options.held_out}": " / ".join(
            dict.fromkeys(str(r.counted) for r in both)
        ),
    }
    even = options.examples // options.batch_size * options.batch_size
    for title, flag in (
        ("short last batch", "--no_batch_norm"),
        ("batch normalization", f"--examples={even}"),
    ):
        one, two = (program.run(replicas, flag) for replicas in (1, 2))
        measures[f"2 replicas − 1: {title}"] = number(two.differs(one.weights))
    measures["2 replicas − 1: both"] = number(both[1].differs(both[0].weights))
    return measures


def resumption(program: Program, options: argparse.Namespace) -> Measures:
    """Compares killed and resumed runs with those that were not interrupted."""
    steps = -(-options.examples // options.batch_size)
    middle = steps * (options.epochs // 2) + -(-steps // 2)  # of an epoch
    every = f"--save_every={SAVE_EVERY}"
    random = ("--shuffle", "--dropout=0.2")
    whole = [program.run(replicas, *random) for replicas in (1, 2)]
    measures = {
        "2 replicas − 1: both, dropout": number(whole[1].differs(whole[0].weights))
    }
    saved: Mapping[str, Sequence[str]] = {
        "epochs": random,
        f"{SAVE_EVERY} steps": (*random, every),
    }
    for title, flags in saved.items():
        measures[f"Resumed, saved by {title}"] = pair(
            program.run(replicas, *flags, kill_at=middle).differs(run.weights)
            for replicas, run in enumerate(whole, start=1)
        )
    calm = program.run(1, "--shuffle")
    at_end = f"--save_every={steps}"
    for title, flag, step in (
        (f"Resumed, saved by {SAVE_EVERY} steps, no dropout", every, middle),
        ("Resumed at an epoch's last step, no dropout", at_end, 2 * steps),
    ):
        run = program.run(1, "--shuffle", flag, kill_at=step)
        measures[title] = number(run.differs(calm.weights))
        measures[f"{title}: history"] = history_faults(run.rows, calm.rows)
    return measures


def pair(differences: Iterable[float]) -> str:
    """Returns the differences for one replica and for two as text."""
    return " / ".join(number(value) for value in differences)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--examples", type=int, default=67)
    parser.add_argument("--held_out", type=int, default=37)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    sizes = [
        f"--{name}={getattr(options, name)}"
        for name in ("examples", "held_out", "batch_size", "epochs")
    ]
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            python = options.torch_python if PEERS[name].processes else sys.executable
            program = Program(name, python, sizes, pathlib.Path(folder))
            columns[PEERS[name].title] = compare(program, options)
    print(markdown(columns))


if __name__ == "__main__":
    main()
