"""A small network of Keras, data for it, and its trainer."""

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


def batches() -> lenet_tf.Batches:
    """Shuffled batches of 8, the last of 6."""
    return lenet_tf.Batches(data(), 8, seed=0)


def network(rate: float = 0.3) -> keras.Model:
    """[B, 6] -> [B, 1], with batch normalization and several kinds of noise."""
    layers = keras.layers
    inputs = keras.Input([6])
    x = layers.Dense(8, activation="tanh", kernel_initializer=glorot(1))(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    if rate:
        x = layers.Dropout(rate, seed=3)(x)
        x = layers.GaussianNoise(0.1, seed=4)(x)
    return keras.Model(inputs, layers.Dense(1, kernel_initializer=glorot(2))(x))


def glorot(seed: int) -> keras.initializers.Initializer:
    """Initial weights that are the same in every process."""
    return keras.initializers.GlorotUniform(seed=seed)


def trainer(
    strategy: tf.distribute.Strategy,
    steps_per_loop: int = 1,
) -> lenet_tf.Trainer:
    """Trains the network with momentum, by an optimizer and a schedule of Keras."""
    with strategy.scope():
        model = lenet_tf.keras.model(network())
        schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.5)
        sgd = keras.optimizers.SGD(schedule, momentum=0.9)
        optimizer = lenet_tf.keras.optimizer(sgd)
    return lenet_tf.Trainer(
        model,
        optimizer,
        lenet_tf.keras.forward("mse"),
        strategy=strategy,
        steps_per_loop=steps_per_loop,
    )


def state_of(run: lenet_tf.Trainer) -> list[np.ndarray]:
    """Every number of the model and its optimizer."""
    optimizer = run.state.updates["optimizer"].optimizer
    return [np.asarray(v.numpy()) for v in (*run.model.variables, *optimizer.slots)]
