"""A worker of a small training, and what it comes to; tests start and import it.

python worker.py weights.npz [training examples [first label]]
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from lenet_tf import SGD, Batches, LeNet5, Trainer, UsageError, make_strategy
from lenet_tf.parallel.workers import is_chief, together


def train(
    strategy: tf.distribute.Strategy,
    examples: int = 103,
    first_label: int | None = None,
) -> dict[str, np.ndarray]:
    """20 steps on 103 random images in batches of 32: weights and figures."""
    rng = np.random.default_rng(0)
    digits = {
        "image": rng.integers(0, 256, [examples, 28, 28, 1], np.uint8),
        "label": rng.integers(0, 10, [examples], np.int32),
    }
    if first_label is not None:
        digits["label"][0] = first_label
    with strategy.scope():
        model = LeNet5(seed=0)
    trainer = Trainer(model, SGD(0.1, momentum=0.9), strategy=strategy)
    with together(strategy, lambda: None) as poll:
        trainer.fit(Batches(digits, 32, seed=0), epochs=5, poll=poll)
        figures = trainer.evaluate(Batches(digits, 50))
    values = {str(i): v.numpy() for i, v in enumerate(model.trainable_variables)}
    return values | {name: np.asarray(figures[name]) for name in ("examples", "loss")}


def main(path: str, *numbers: str) -> None:
    strategy = make_strategy(kind="multi_worker")
    try:
        end = train(strategy, *map(int, numbers))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if is_chief(strategy):
        np.savez(path, **end)


if __name__ == "__main__":
    main(*sys.argv[1:])
