"""Trainers in one process, as for k-fold; prints the MiB that each leaves behind."""

from __future__ import annotations

import gc
import pathlib
import sys

import numpy as np
import tensorflow as tf

import lenet_tf

KIND, WORKDIR = sys.argv[1], pathlib.Path(sys.argv[2])
strategy = lenet_tf.make_strategy(2)
X = np.random.default_rng(0).normal(size=[100, 8]).astype(np.float32)


class Net(tf.Module):
    """A hidden layer with batch normalization."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.hidden = lenet_tf.nn.Dense(8, 16, (seed, 1))
        self.norm = lenet_tf.nn.BatchNorm(16)
        self.output = lenet_tf.nn.Dense(16, 1, (seed, 2))


def forward(model: Net, batch: dict, training: bool) -> dict:
    hidden = model.norm(model.hidden(batch["x"]), batch, training)
    return {"loss": (model.output(tf.tanh(hidden))[:, 0] - batch["y"]) ** 2}


class Rows:
    """Examples read one by one."""

    def __init__(self, index: np.ndarray) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> dict:
        x = X[self._index[i]]
        return {"x": x, "y": x.sum()}


def fold(k: int) -> None:
    held_out = np.arange(100) % 8 == k
    parts = []
    for chosen in (~held_out, held_out):
        rows = Rows(np.flatnonzero(chosen))
        arrays = {"x": X[chosen], "y": X[chosen].sum(1)}
        parts.append(lenet_tf.Batches(rows if KIND == "rows" else arrays, 10))
    with strategy.scope():
        model = Net(k)
    trainer = lenet_tf.Trainer(
        model, lenet_tf.Adam(0.01), forward, strategy=strategy, ema=0.9
    )
    with lenet_tf.Workdir(WORKDIR / str(k), {"fold": k}) as run:
        run.fit(trainer, parts[0], epochs=2, validation=parts[1])
        run.write_result(trainer.evaluate(parts[1]))
    trainer.predict(parts[1], lambda model, batch: model.hidden(batch["x"]))


def mebibytes() -> float:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


before = mebibytes()
for k in range(8):
    fold(k)
    after = mebibytes()
    print(after - before)
    before = after
