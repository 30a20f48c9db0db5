"""Times this library against Keras (and PyTorch, when it is there) on this machine.

    python benchmarks/benchmark.py --mode=all
    python benchmarks/benchmark.py --mode=throughput --batch_sizes=64 --repeats=5

Protocol. The network is the reference LeNet-5 with Adam, on MNIST. Each program is a
process of its own that is warmed up by an epoch before anything is counted: imports,
reading data and tracing are in `startup` only. In each repeat the programs train one
epoch in turn, so that a machine that slows down slows all of them; nothing else may
run. The clock goes from the call to its end, the input pipeline included; Keras and
PyTorch get images that were padded and scaled beforehand, this library the raw bytes.
Given are medians, and the median of the ratios within a repeat. The best Keras is that
of its own settings; "hand-made input" is what this library's tricks outside the graph
(batches by one gather, no tf.data tuner, cached oneDNN primitives) do for Keras.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from lenet_tf.cli import program

MODES = ("throughput", "input", "startup", "scaling", "accuracy")
HERE = pathlib.Path(__file__).resolve().parent

_MODE = flags.DEFINE_enum("mode", "all", ["all", *MODES], "What to measure.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["64", "256", "1024"], "To time.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Epochs counted.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "runs/benchmark.json", "Where to write.")

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
    """A program that trains an epoch when it is told to."""

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
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (row for row in status.splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        """Lets it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def timed_in_turn(
    contenders: Mapping[str, Contender], repeats: int
) -> dict[str, list[float]]:
    """Returns name -> seconds of each repeat; the programs take turns in it."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            seconds[name].append(contender.epoch())
    return seconds


def throughput(repeats: int) -> dict[str, Any]:
    """Images a second, by batch size and program."""
    results: dict[str, Any] = {}
    for batch_size in map(int, _BATCH_SIZES.value):
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


def input_share(repeats: int) -> dict[str, Any]:
    """The share of an epoch in which the loop waits for its next block."""
    import lenet_tf

    strategy = lenet_tf.make_strategy("auto", "mirrored")
    replicas = strategy.num_replicas_in_sync
    train = lenet_tf.load("mnist").train
    batches = lenet_tf.as_batches(train, 64, seed=0)
    with strategy.scope():
        model = lenet_tf.LeNet5()
    trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), strategy=strategy)
    trainer.fit(batches, epochs=1)
    shares = []
    for epoch in range(1, repeats + 1):
        blocks = batches.blocks(
            replicas,
            start_step=epoch * batches.steps_per_epoch,
            epochs=epoch + 1,
        )
        began, waited = time.perf_counter(), 0.0
        while True:
            asked = time.perf_counter()
            block = next(blocks, None)
            waited += time.perf_counter() - asked
            if block is None:
                break
            trainer.train_on(block)
        shares.append(waited / (time.perf_counter() - began))
    print(f"\nwaiting for input: {statistics.median(shares):.1%} of an epoch")
    test = lenet_tf.as_batches(lenet_tf.load("mnist").test, 250)
    trainer.evaluate(test)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        trainer.evaluate(test)
        seconds.append(time.perf_counter() - began)
    print(f"evaluation of 10,000: {statistics.median(seconds):.2f} s after the first")
    return {"waiting": shares, "evaluation_seconds": seconds}


STARTUP = """
import time, sys
began = float(sys.argv[1])
def told(what): print(f"{what} {time.time() - began}", flush=True)
from lenet_tf.cli import program  # TensorFlow without its notices
import lenet_tf
told("imported")
strategy = lenet_tf.make_strategy()
train = lenet_tf.load("mnist").train
told("read")
batches = lenet_tf.as_batches(train, 64, seed=0)
with strategy.scope():
    model = lenet_tf.LeNet5()
trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), strategy=strategy)
trainer.start(batches)
trainer.train_on(next(iter(batches.blocks(strategy.num_replicas_in_sync, 1))))
told("stepped")
"""


def startup(repeats: int) -> dict[str, Any]:
    """Seconds from the start of the process to the end of the first step."""
    runs: list[dict[str, float]] = []
    for _ in range(repeats):
        output = subprocess.run(
            [sys.executable, "-c", STARTUP, str(time.time())],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = (line.split() for line in output.splitlines())
        runs.append({name: float(seconds) for name, seconds in lines})
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print(
        "\nfrom process start: "
        + ", ".join(f"{name} at {seconds:.1f} s" for name, seconds in medians.items())
    )
    return {"runs": runs}


def scaling(repeats: int) -> dict[str, Any]:
    """Cost by the number of examples; memory."""
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


def accuracy(repeats: int) -> dict[str, Any]:
    """Seconds and accuracy of the sprint recipe over seeds."""
    output = subprocess.run(
        [
            sys.executable,
            str(HERE / "seeds.py"),
            "--recipe=sprint",
            f"--seeds={repeats}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    print(f"\n{output}", end="")
    return {"sprint": output.splitlines()}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = platform.processor()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    packages = ("tensorflow", "keras", "numpy")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def main() -> None:
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    measures = dict(
        zip(
            MODES,
            (throughput, input_share, startup, scaling, accuracy),
            strict=True,
        )
    )
    chosen = MODES if _MODE.value == "all" else (_MODE.value,)
    results: dict[str, Any] = {"machine": machine()}
    for mode in chosen:
        results[mode] = measures[mode](_REPEATS.value)
    path = pathlib.Path(_OUTPUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    program.run(main, __doc__)
