"""Small networks of Keras, and data for them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import lenet_tf
import lenet_tf.keras


def data(examples: int = 22) -> dict[str, np.ndarray]:
    """Inputs [N, 6], the first of them an outlier, and targets [N, 1]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[examples, 6]).astype(np.float32)
    x[0] = 30.0
    return {"x": x, "y": np.tanh(x[:, :1])}


def functional(rate: float = 0.3) -> keras.Model:
    """[B, 6] -> [B, 1], with dropout and batch normalization."""
    layers = keras.layers
    inputs = keras.Input([6])
    x = layers.Dense(8, activation="tanh", kernel_initializer=uniform(1))(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    if rate:
        x = layers.Dropout(rate)(x)
        x = layers.GaussianNoise(0.1)(x)
    return keras.Model(inputs, layers.Dense(1, kernel_initializer=uniform(2))(x))


def uniform(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


def trainer(
    strategy: tf.distribute.Strategy,
    network: keras.Layer,
    optimizer: lenet_tf.keras.KerasOptimizer | lenet_tf.optim.Optimizer,
    **options: object,
) -> lenet_tf.Trainer:
    with strategy.scope():
        model = lenet_tf.keras.model(network)
    return lenet_tf.Trainer(
        model,
        optimizer,
        lenet_tf.keras.forward("mse"),
        strategy=strategy,
        **options,
    )


def weights(network: keras.Layer) -> list[np.ndarray]:
    """The weights of a network, without the states of random generators."""
    return [np.asarray(weight) for weight in network.get_weights()]
