"""Programs that train the same network in turn, and what an epoch costs each.

contender = Contender(["--program=keras", "--batch_size=64"])
contender.epoch()                 # seconds
throughput([64, 256], repeats=3)  # prints a table, and returns it
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from machine import resident_mebibytes

HERE = pathlib.Path(__file__).resolve().parent

AUTO = "lenet_tf, auto"
ONE = "lenet_tf, 1 replica, 1 thread"
HAND_MADE = "Keras, 50 steps, hand-made input"
# XLA, the plain forms and what goes beyond Keras's settings are timed where the targets
# are set.
EXTRA = {
    "lenet_tf, auto, plain forms": ["--program=lenet_tf", "--plain"],
    "lenet_tf, auto, mixed_bfloat16": [
        "--program=lenet_tf",
        "--precision=mixed_bfloat16",
    ],
    "Keras, jit": ["--program=keras", "--jit_compile"],
    "Keras, jit, 50 steps": [
        "--program=keras",
        "--jit_compile",
        "--steps_per_execution=50",
    ],
    HAND_MADE: ["--program=keras", "--steps_per_execution=50", "--hand_made"],
}
PROGRAMS = {
    AUTO: ["--program=lenet_tf"],
    ONE: ["--program=lenet_tf", "--num_replicas=1"],
    "Keras": ["--program=keras"],
    "Keras, 50 steps": ["--program=keras", "--steps_per_execution=50"],
    "PyTorch": ["--program=torch"],
}
ENVIRONMENTS = {
    ONE: {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
    # As `make_strategy` sets it; Keras's own settings do not.
    HAND_MADE: {"TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE": "false"},
}


class Contender:
    """A program of contenders.py, which trains an epoch when it is told to.

    Args:
      arguments: Flags of the program.
      environment: Environment variables to set for it.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "contenders.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended without an answer")
        return line

    def epoch(self) -> float:
        """Trains an epoch, and returns its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        return float(self._read())

    def memory(self) -> float:
        """Returns its resident memory, MiB."""
        return resident_mebibytes(self._process.pid)

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def timed_in_turn(
    contenders: Mapping[str, Contender], repeats: int
) -> dict[str, list[float]]:
    """Lets programs train an epoch in turn; returns name -> seconds of each repeat."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            seconds[name].append(contender.epoch())
    return seconds


def throughput(batch_sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Measures images a second, by batch size and program."""
    results: dict[str, Any] = {}
    for batch_size in batch_sizes:
        programs = {**PROGRAMS, **(EXTRA if batch_size == 64 else {})}
        if importlib.util.find_spec("torch") is None:
            del programs["PyTorch"]
        contenders = {
            name: Contender(
                [*arguments, f"--batch_size={batch_size}"],
                ENVIRONMENTS.get(name),
            )
            for name, arguments in programs.items()
        }
        seconds = timed_in_turn(contenders, repeats)
        for contender in contenders.values():
            contender.close()
        best = min(
            (n for n in seconds if n.startswith("Keras") and n != HAND_MADE),
            key=lambda name: statistics.median(seconds[name]),
        )
        print(f"\nbatch {batch_size}: seconds an epoch of 58,000, median of {repeats}")
        for name, times in seconds.items():
            ratio = statistics.median(
                k / t for k, t in zip(seconds[best], times, strict=True)
            )
            median = statistics.median(times)
            print(
                f"  {name:34s} {median:6.2f} s  {58_000 / median:8,.0f} images/s  "
                f"{ratio:5.2f} x {best}"
            )
            results[f"{batch_size}: {name}"] = {
                "seconds": times,
                "images_per_second": 58_000 / median,
                "times_best_keras": ratio,
            }
    return results


def scaling(repeats: int) -> dict[str, Any]:
    """Measures time by image and memory, by the number of examples."""
    results: dict[str, Any] = {}
    print("\nexamples   µs an image   resident MiB")
    for examples in (10_000, 60_000, 240_000, 480_000):
        # Small epochs are repeated within a call, which has a cost of its own.
        epochs = max(1, 120_000 // examples)
        arguments = [f"--examples={examples}", f"--epochs={epochs}"]
        contender = Contender(["--program=lenet_tf", *arguments])
        times = [contender.epoch() for _ in range(repeats)]
        memory = contender.memory()
        contender.close()
        cost = statistics.median(times) / examples * 1e6
        print(f"{examples:8,d}   {cost:11.1f}   {memory:12,.0f}")
        results[str(examples)] = {"microseconds": cost, "mebibytes": memory}
    return results
