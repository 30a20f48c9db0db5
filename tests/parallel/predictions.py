"""A worker that predicts, and the predictions; tests start and import it.

python predictions.py rows.npz
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from lenet_tf import Batches, LeNet5, UsageError, make_strategy, standardize
from lenet_tf.nn import uniform
from lenet_tf.parallel.workers import is_chief, together
from lenet_tf.train.prediction import Prediction


def function(model: LeNet5, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    logits = model(standardize(batch["image"]), training=False)
    return {
        "logits": logits,
        "half": tf.cast(logits, tf.bfloat16),
        "double": tf.cast(logits[:, 0], tf.float64),
        "class": tf.argmax(logits, axis=1),
        "right": tf.argmax(logits, axis=1) == batch["label"],
        "image": batch["image"],
        "noise": uniform(batch, [2], salt=0),
    }


def predict(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """Predictions for 103 random images in batches of 25."""
    rng = np.random.default_rng(0)
    digits = {
        "image": rng.integers(0, 256, [103, 28, 28, 1], np.uint8),
        "label": rng.integers(0, 10, [103], np.int64),
        "weight": rng.integers(0, 2, [103]),
    }
    with strategy.scope():
        model = LeNet5(seed=0)
    data = Batches(digits, 25)
    spec = data.spec(strategy.num_replicas_in_sync)
    with together(strategy, lambda: None) as poll:
        rows = Prediction(strategy, model, function, spec, 0).run(data, 2, poll)
    assert isinstance(rows, dict)
    return rows


def words(strategy: tf.distribute.Strategy) -> None:
    """Asks for strings, which workers cannot exchange."""
    spec = Batches({"x": np.zeros(4)}, 4).spec(strategy.num_replicas_in_sync)
    Prediction(
        strategy, tf.Module(), lambda m, b: tf.strings.as_string(b["x"]), spec, 0
    )


def main(path: str) -> None:
    strategy = make_strategy(kind="multi_worker")
    rows = predict(strategy)
    # bfloat16 is no dtype of NumPy's own.
    rows["half"] = rows["half"].astype(np.float32)
    np.savez(f"{path}.{0 if is_chief(strategy) else 1}.npz", **rows)
    try:
        words(strategy)
    except UsageError as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
