"""Compares epochs of MNIST read from TFRecord files with epochs of it in memory.

    python benchmarks/streaming.py --replicas=2 --turns=5

Two trainers take turns of three epochs. Of each turn the last two epochs are timed,
from the end of one to the end of the next. The exit status is 0 if both trainers end
with the same weights, bit for bit.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from absl import flags

import lenet_tf
from lenet_tf.cli import program

_REPLICAS = flags.DEFINE_integer("replicas", 2, "Number of replicas.", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 5, "Number of turns of each.", lower_bound=1)
_EPOCHS = 3  # in a turn


def turn(trainer: lenet_tf.Trainer, data: lenet_tf.Batches, epochs: int) -> list[float]:
    """Trains up to a number of epochs; returns the seconds of all but the first."""
    ends: list[float] = []

    def note_the_time(moment: lenet_tf.Moment) -> None:
        ends.append(time.perf_counter())

    actions = [lenet_tf.at(lenet_tf.every_epoch(), note_the_time)]
    trainer.fit(data, epochs=epochs, actions=actions, progress=False)
    return np.diff(ends).tolist()


def main() -> int:
    strategy = lenet_tf.make_strategy(_REPLICAS.value)
    splits = lenet_tf.load("mnist", validation_examples=0)
    arrays = {"image": splits.train.image, "label": splits.train.label}
    trainers: list[lenet_tf.Trainer] = []
    for _ in range(2):
        with strategy.scope():
            model = lenet_tf.LeNet5()
        trainers.append(
            lenet_tf.Trainer(
                model,
                lenet_tf.Adam(1e-3),
                strategy=strategy,
            )
        )
    data = [
        lenet_tf.Batches(source, 64, seed=0)
        for source in (arrays, splits.records("train"))
    ]
    seconds: list[list[list[float]]] = [[], []]
    for number in range(_TURNS.value):
        for i in (0, 1) if number % 2 else (1, 0):
            epochs = _EPOCHS * (number + 1)
            seconds[i].append(turn(trainers[i], data[i], epochs))
    ratios = [sum(b) / sum(a) for a, b in zip(*seconds, strict=True)]
    for name, turns in zip(("in memory", "from files"), seconds, strict=True):
        middle = statistics.median(s for each in turns for s in each)
        print(f"{name}: {middle:.3f} s an epoch")
    print("ratios:", *(f"{r:.3f}" for r in ratios), f"median {np.median(ratios):.3f}")
    pairs = zip(*(trainer.model.variables for trainer in trainers), strict=True)
    same = all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)
    print("the weights are", "the same" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    program.run(main, __doc__)
