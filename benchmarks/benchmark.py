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

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import contest
import machine
from absl import flags

from lenet_tf.cli import program
from lenet_tf.errors import UsageError
from lenet_tf.files import write_json

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("throughput", "input", "startup", "scaling", "accuracy")

_MODE = flags.DEFINE_enum("mode", "all", ["all", *MODES], "Quantity to measure.")
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", ["64", "256", "1024"], "Batch sizes whose throughput is measured."
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 3, "Number of epochs that are counted, or of starts.", lower_bound=1
)
_OUTPUT = program.define_path(
    "output", "runs/benchmark.json", "JSON file to write the measurements to."
)
flags.register_validator(
    "batch_sizes",
    lambda sizes: sizes and all(s.isdecimal() and 0 < int(s) < 2**31 for s in sizes),
    "batch_sizes must be whole numbers above 0, such as 64,256",
)


def input_share(repeats: int) -> dict[str, Any]:
    """Measures the share of an epoch in which the loop waits for its next block."""
    import lenet_tf

    strategy = lenet_tf.make_strategy("auto", "mirrored")
    replicas = strategy.num_replicas_in_sync
    train = lenet_tf.load("mnist").train
    batches = lenet_tf.as_batches(train, 64, seed=0)
    with strategy.scope():
        model = lenet_tf.LeNet5()
    trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), strategy=strategy)
    trainer.fit(batches, epochs=1, progress=False)
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
    print(f"\nthe loop waits for input {statistics.median(shares):.1%} of an epoch")
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
    """Measures seconds from the start of a process to the end of its first step."""
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


def accuracy(repeats: int) -> dict[str, Any]:
    """Measures seconds and accuracy of the sprint recipe over seeds."""
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


def check_output(path: pathlib.Path) -> None:
    """Makes the folder of the output, before minutes are spent on measuring.

    Raises:
      UsageError: The file cannot be written there.
    """
    if path.is_dir():
        raise UsageError(f"output is {path}: it is a folder, name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"output is {path}: it cannot be written ({error.strerror})"
        ) from error


def main() -> None:
    check_output(_OUTPUT.value)
    measured_on = machine.describe()
    print(", ".join(f"{name} {value}" for name, value in measured_on.items()))
    batch_sizes = [int(size) for size in _BATCH_SIZES.value]
    measures: dict[str, Callable[[int], dict[str, Any]]] = {
        "throughput": lambda repeats: contest.throughput(batch_sizes, repeats),
        "input": input_share,
        "startup": startup,
        "scaling": contest.scaling,
        "accuracy": accuracy,
    }
    results: dict[str, Any] = {"machine": measured_on}
    for mode in MODES if _MODE.value == "all" else (_MODE.value,):
        results[mode] = measures[mode](_REPEATS.value)
    write_json(_OUTPUT.value, results)
    print(f"\nwritten to {_OUTPUT.value}")


if __name__ == "__main__":
    program.run(main, __doc__)
