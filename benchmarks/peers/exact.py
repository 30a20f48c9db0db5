"""The experiment in NumPy, float64: what every program should come to.

    weights = train(data, initial_weights(), epochs=4, batch_size=16)
    loss(weights, held_out)

For a fixed order of the examples and no dropout. A batch is the global batch: its mean
loss and its moments are over its own examples, however few.
"""

from __future__ import annotations

import numpy as np
from problem import (
    BATCH_NORM_MOMENTUM,
    EPSILON,
    LEARNING_RATE,
    MOMENTUM,
    Arrays,
)

TRAINED = ("w1", "b1", "gamma", "beta", "w2", "b2")


def train(
    data: Arrays, start: Arrays, epochs: int, batch_size: int, unbiased: bool = False
) -> Arrays:
    """Trains by gradient descent with momentum; returns the final weights.

    Args:
      data: x [N, features] and y [N].
      start: Initial weights, by the names of `problem.initial_weights`.
      epochs: Number of passes over the data.
      batch_size: Number of examples in a batch; the last may have fewer.
      unbiased: Whether the moving variance is that of n - 1 degrees of freedom, as in
        PyTorch, and not of n, as in Keras and in the paper.
    """
    weights = {name: value.astype(np.float64) for name, value in start.items()}
    velocity = {name: np.zeros_like(weights[name]) for name in TRAINED}
    for _ in range(epochs):
        for begin in range(0, len(data["y"]), batch_size):
            x, y = (data[k][begin : begin + batch_size] for k in ("x", "y"))
            gradient, mean, variance = _gradient(weights, x.astype(np.float64), y)
            for name in TRAINED:
                velocity[name] = MOMENTUM * velocity[name] - (
                    LEARNING_RATE * gradient[name]
                )
                weights[name] = weights[name] + velocity[name]
            if unbiased:
                variance = variance * len(y) / (len(y) - 1)
            for name, value in (("mean", mean), ("variance", variance)):
                weights[name] = (
                    BATCH_NORM_MOMENTUM * weights[name]
                    + (1 - BATCH_NORM_MOMENTUM) * value
                )
    return weights


def _gradient(
    w: Arrays, x: np.ndarray, y: np.ndarray
) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Returns the gradient of the mean squared error, and the batch's moments."""
    hidden = x @ w["w1"] + w["b1"]
    mean, variance = hidden.mean(0), hidden.var(0)
    scale = 1 / np.sqrt(variance + EPSILON)
    normal = (hidden - mean) * scale
    active = np.maximum(w["gamma"] * normal + w["beta"], 0)
    error = (active @ w["w2"] + w["b2"])[:, 0] - y
    by_output = 2 * error[:, None] / len(y)
    by_active = by_output @ w["w2"].T * (active > 0)
    by_normal = by_active * w["gamma"]
    # Ioffe and Szegedy, "Batch normalization", ICML 2015, section 3.
    by_hidden = scale * (
        by_normal - by_normal.mean(0) - normal * (by_normal * normal).mean(0)
    )
    gradient = {
        "w1": x.T @ by_hidden,
        "b1": by_hidden.sum(0),
        "gamma": (by_active * normal).sum(0),
        "beta": by_active.sum(0),
        "w2": active.T @ by_output,
        "b2": by_output.sum(0),
    }
    return gradient, mean, variance


def loss(weights: Arrays, data: Arrays) -> float:
    """Returns the mean squared error of a data set, with the moving averages."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    hidden = data["x"].astype(np.float64) @ w["w1"] + w["b1"]
    normal = (hidden - w["mean"]) / np.sqrt(w["variance"] + EPSILON)
    active = np.maximum(w["gamma"] * normal + w["beta"], 0)
    error = (active @ w["w2"] + w["b2"])[:, 0] - data["y"]
    return float(np.mean(error**2))
