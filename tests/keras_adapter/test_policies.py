"""Mixed precision by Keras's dtype policies."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import data

import lenet_tf
import lenet_tf.keras
from lenet_tf.parallel import make_strategy


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_in_half_precision_has_weights_and_loss_in_float32(
    policy: str,
) -> None:
    strategy = make_strategy(2)
    half = policy == "mixed_float16"
    layers = keras.layers
    with strategy.scope():
        network = keras.Sequential(
            [
                keras.Input([6]),
                layers.Dense(8, dtype=policy),
                layers.BatchNormalization(dtype=policy),
                layers.Dropout(0.1, dtype=policy),
                layers.Dense(1, dtype=policy),
            ]
        )
        model = lenet_tf.keras.model(network)
        optimizer = lenet_tf.keras.optimizer(keras.optimizers.SGD(0.02))
    assert {v.dtype for v in model.trainable_variables} == {tf.float32}
    seen: list[tf.DType] = []
    per_example = lenet_tf.keras.loss("mse")

    def forward(model: tf.Module, batch: dict, training: bool) -> dict:
        y = model(batch["x"], batch, training)
        loss = per_example(batch["y"], y)
        seen.extend([y.dtype, loss.dtype])
        return {"loss": loss}

    trainer = lenet_tf.Trainer(
        model, optimizer, forward, strategy=strategy, loss_scaling=half
    )
    history = trainer.fit(lenet_tf.Batches(data(), 8, seed=0), epochs=12)
    assert set(seen[::2]) == {tf.as_dtype(policy.removeprefix("mixed_"))}
    assert set(seen[1::2]) == {tf.float32}
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(*variable.values)


def test_a_single_layer_follows_its_policy_too() -> None:
    layer = keras.layers.Dense(2, dtype="mixed_bfloat16")
    layer.build([None, 6])
    y = lenet_tf.keras.model(layer)(tf.constant(data()["x"]))
    assert y.dtype == tf.bfloat16
