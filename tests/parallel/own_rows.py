"""A worker that trains on examples read one by one; tests start and import it.

python own_rows.py end.npz
"""

from __future__ import annotations

import os
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from lenet_tf import SGD, Batches, Trainer, make_strategy
from lenet_tf.nn import Dense
from lenet_tf.parallel.workers import is_chief, together


class Rows:
    """64 random examples; remembers which were read."""

    def __init__(self) -> None:
        self._x = np.random.default_rng(0).normal(size=[64, 3]).astype(np.float32)
        self._lock = threading.Lock()
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        with self._lock:
            self.read.append(i)
        return {"x": self._x[i]}


def forward(model: Dense, batch: dict, training: bool) -> dict:
    return {"loss": (model(batch["x"])[:, 0] - batch["x"][:, 1]) ** 2}


def train(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """An epoch and an evaluation: weights, loss, predictions, examples read."""
    with strategy.scope():
        model = Dense(3, 1, (0, 0), "line")
    trainer = Trainer(model, SGD(0.1), forward, strategy=strategy)
    rows = {"train": Rows(), "evaluate": Rows(), "predict": Rows()}
    train, evaluate, predict = (
        Batches(rows[name], 16, seed=0 if name == "train" else None) for name in rows
    )
    for each in rows.values():
        del each.read[:]
    with together(strategy, lambda: None) as poll:
        trainer.fit(train, epochs=1, poll=poll)
        end = {
            "loss": np.asarray(trainer.evaluate(evaluate)["loss"]),
            "prediction": trainer.predict(predict, lambda m, batch: batch["x"]),
        }
    end |= {f"weights {i}": v.numpy() for i, v in enumerate(model.trainable_variables)}
    return end | {f"read to {name}": np.array(r.read) for name, r in rows.items()}


def main(path: str) -> None:
    strategy = make_strategy(kind="multi_worker")
    np.savez(f"{path}.{0 if is_chief(strategy) else 1}.npz", **train(strategy))


if __name__ == "__main__":
    main(*sys.argv[1:])
