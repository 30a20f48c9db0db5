"""100 steps of random gradients, for the tests of all optimizers."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from lenet_tf.optim import LAMB, SGD, Adam, AdamW, Lion, Muon, Optimizer, RMSprop

SHAPES = [[4, 3], [3], [2, 2, 1, 2]]
STEPS = 100

CASES: dict[str, tuple[Callable[[], Optimizer], Callable[[], keras.Optimizer]]] = {
    "adam": (lambda: Adam(3e-3), lambda: keras.optimizers.Adam(3e-3)),
    "adam with other constants": (
        lambda: Adam(1e-2, beta_1=0.7, beta_2=0.99, epsilon=1e-3),
        lambda: keras.optimizers.Adam(1e-2, beta_1=0.7, beta_2=0.99, epsilon=1e-3),
    ),
    "adamw": (
        lambda: AdamW(1e-2, weight_decay=0.1),
        lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
    ),
    "lamb": (
        lambda: LAMB(1e-2, weight_decay=0.0),
        lambda: keras.optimizers.Lamb(1e-2, epsilon=1e-6),
    ),
    "lion": (
        lambda: Lion(3e-3, weight_decay=0.1),
        lambda: keras.optimizers.Lion(3e-3, weight_decay=0.1),
    ),
    "lion with other constants": (
        lambda: Lion(1e-2, weight_decay=0.0, beta_1=0.95, beta_2=0.98),
        lambda: keras.optimizers.Lion(1e-2, beta_1=0.95, beta_2=0.98),
    ),
    "muon": (
        lambda: Muon(3e-3, weight_decay=0.1),
        lambda: keras.optimizers.Muon(3e-3, weight_decay=0.1),
    ),
    "muon with other constants": (
        lambda: Muon(1e-2, weight_decay=0.0, momentum=0.8, beta_1=0.7, epsilon=1e-3),
        lambda: keras.optimizers.Muon(
            1e-2, weight_decay=None, momentum=0.8, adam_beta_1=0.7, epsilon=1e-3
        ),
    ),
    "rmsprop": (
        lambda: RMSprop(3e-3, rho=0.8),
        lambda: keras.optimizers.RMSprop(3e-3, rho=0.8),
    ),
    "sgd": (lambda: SGD(0.05), lambda: keras.optimizers.SGD(0.05)),
    "sgd with momentum": (
        lambda: SGD(0.05, momentum=0.9),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    ),
    "sgd with Nesterov's momentum": (
        lambda: SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    ),
}


def initial() -> list[np.ndarray]:
    """Draws parameters."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    """Draws gradients whose sizes differ by orders from step to step."""
    rng = np.random.default_rng(step + 1)
    scale = 10.0 ** rng.uniform(-3, 1)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]


def train(
    optimizer: Optimizer, steps: int = STEPS, dtype: str = "float32"
) -> list[np.ndarray]:
    """Applies an optimizer module on one replica, and returns the parameters."""
    variables = [tf.Variable(value, dtype=dtype) for value in initial()]
    optimizer.build(variables)
    strategy = tf.distribute.get_strategy()

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        strategy.run(lambda: optimizer.apply(grads, variables, i))

    for i in range(steps):
        step([tf.constant(g, dtype) for g in gradients(i)], tf.constant(i, tf.int64))
    return [variable.numpy() for variable in variables]


def train_keras(
    optimizer: keras.Optimizer, steps: int = STEPS, dtype: str = "float32"
) -> list[np.ndarray]:
    """The same with an optimizer of Keras, by our rule of what decays.

    Kernels of more than two axes are given to Keras as matrices.
    """

    def as_matrix(value: np.ndarray) -> np.ndarray:
        return value.reshape(-1, value.shape[-1]) if value.ndim > 2 else value

    variables = [keras.Variable(as_matrix(v), dtype=dtype) for v in initial()]
    optimizer.exclude_from_weight_decay([v for v in variables if v.ndim < 2])
    optimizer.build(variables)
    for i in range(steps):
        grads = [tf.constant(as_matrix(g), dtype) for g in gradients(i)]
        optimizer.apply(grads, variables)
    return [np.reshape(v, shape) for v, shape in zip(variables, SHAPES, strict=True)]


def assert_close(a: list[np.ndarray], b: list[np.ndarray], atol: float) -> None:
    """Holds two lists of parameters together."""
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=atol)
