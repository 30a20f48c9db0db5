"""A network of keras.applications is trained, saved and resumed."""

from __future__ import annotations

import pathlib
import shutil

import keras
import numpy as np

import lenet_tf
import lenet_tf.keras
from lenet_tf.parallel import make_strategy


def test_a_mobilenet_is_resumed_bit_for_bit_on_two_replicas(
    tmp_path: pathlib.Path,
) -> None:
    """With 27 batch normalizations, dropout, and a ragged last batch.

    The second run goes on in the same trainer, for the trace is what takes time; a new
    process is in test_models.
    """
    strategy = make_strategy(2)
    with strategy.scope():
        network = keras.applications.MobileNet(
            input_shape=(32, 32, 3), alpha=0.25, dropout=0.5, weights=None, classes=3
        )
        model = lenet_tf.keras.model(network)
        optimizer = lenet_tf.keras.optimizer(keras.optimizers.SGD(0.01))
    forward = lenet_tf.keras.forward(
        "sparse_categorical_crossentropy",
        metrics={"accuracy": keras.metrics.sparse_categorical_accuracy},
    )
    trainer = lenet_tf.Trainer(
        model, optimizer, forward, strategy=strategy, steps_per_loop=1
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=[6, 32, 32, 3]).astype(np.float32)
    arrays = {"x": images, "y": rng.integers(0, 3, [6])}
    batches = lenet_tf.Batches(arrays, 4, seed=0)  # of 4 and 2 examples
    saver = lenet_tf.Saver(tmp_path / "whole", steps=1, keep=9)
    history = trainer.fit(batches, epochs=2, saver=saver)
    whole = network.get_weights()
    assert len(whole) == 137
    assert all(np.isfinite(weight).all() for weight in whole)

    killed = tmp_path / "killed" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints", killed)
    for path in [*killed.glob("step-3.*"), *killed.glob("*-4.*")]:
        path.unlink()
    resumed = trainer.fit(
        batches, epochs=2, saver=lenet_tf.Saver(tmp_path / "killed", best=None)
    )
    assert resumed == history
    for a, b in zip(whole, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert trainer.traces["train"] == 1
