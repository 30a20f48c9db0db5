"""Metrics as sums and counts, divided once at the end.

    metrics = Accumulators({"loss": [], "accuracy": []})
    metrics.update(weighted_sums({"loss": loss, "accuracy": hit}, weight))
    metrics.result()["accuracy"]          # sum of w * v / sum of w
    metrics.examples.numpy()              # examples of weight > 0, counted one by one

No mean of means is taken, so the results do not depend on how the examples are divided
into batches or among replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.parallel.collectives import local_assign_add, value_of

Values: TypeAlias = Mapping[str, tf.Tensor]  # name -> per-example values [B, ...]
Sums: TypeAlias = dict[str, tf.Tensor]  # name -> sum over the examples [...]

EXAMPLES = "examples"


def weighted_sums(values: Values, weight: tf.Tensor) -> Sums:
    """Sums per-example values over a batch.

    Args:
      values: Name -> per-example values [B, ...], numbers or Booleans.
      weight: Weights of the examples, float32 [B]. An example of weight 0 does not
        count, even if its value is NaN.

    Returns:
      Name -> sum of weight * value [...], float64 for float64 values, otherwise
      float32. Two more entries, float32 scalars: `weight`, the sum of the weights, and
      `examples`, the number of examples with a weight above 0, exact up to 2**24
      examples per batch.
    """
    sums = {}
    for name, value in values.items():
        if value.dtype != tf.float64:
            value = tf.cast(value, tf.float32)
        column = tf.reshape(weight, [-1] + [1] * (value.shape.rank - 1))
        weighted = tf.math.multiply_no_nan(value, tf.cast(column, value.dtype))
        sums[name] = tf.reduce_sum(weighted, axis=0)
    sums[WEIGHT] = tf.reduce_sum(weight)
    sums[EXAMPLES] = tf.reduce_sum(tf.cast(weight > 0, tf.float32))
    return sums


class Accumulators(tf.Module):
    """Running sums of per-example values, the same on every replica.

    Args:
      shapes: Name -> shape of one example's value. Scalars are averaged; arrays, such
        as a confusion matrix, are summed.

    Attributes:
      totals: Name -> float64 variable of that shape, the sum of weight * value.
      weight: float64 scalar, the sum of the weights.
      examples: int64 scalar, the number of examples with a weight above 0.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], name: str = "metrics"
    ) -> None:
        super().__init__(name=name)

        def zeros(key: str, shape: Sequence[int], dtype: tf.DType) -> tf.Variable:
            value = tf.zeros(shape, dtype)
            return tf.Variable(value, trainable=False, name=f"{name}/{key}")

        self.totals = {
            key: zeros(key, shapes[key], tf.float64)
            for key in sorted(shapes, key=_loss_first)
        }
        self.weight = zeros(WEIGHT, [], tf.float64)
        self.examples = zeros(EXAMPLES, [], tf.int64)

    def update(self, sums: Mapping[str, tf.Tensor]) -> None:
        """Adds the sums of one global batch.

        In a replica context the sums must have been all-reduced: each replica adds
        them to its own copy.

        Args:
          sums: Name -> sum over the batch, from `weighted_sums` or `mean_gradients`.
        """
        for key, total in self.totals.items():
            local_assign_add(total, tf.cast(sums[key], tf.float64))
        local_assign_add(self.weight, tf.cast(sums[WEIGHT], tf.float64))
        local_assign_add(self.examples, tf.cast(sums[EXAMPLES], tf.int64))

    @property
    def names(self) -> list[str]:
        """The names of the scalar values, which `result` returns."""
        return [k for k, total in self.totals.items() if total.shape.rank == 0]

    def result(self) -> dict[str, float]:
        """Returns name -> weighted mean of the scalar values; NaN before any update."""
        weight = float(value_of(self.weight))
        return {
            key: float(value_of(self.totals[key])) / weight if weight else float("nan")
            for key in self.names
        }

    def sums(self) -> dict[str, np.ndarray]:
        """Returns name -> weighted sum, a float64 array, of values that are arrays."""
        return {
            key: value_of(total)
            for key, total in self.totals.items()
            if total.shape.rank > 0
        }

    def reset(self) -> None:
        """Sets all sums and counts to zero."""
        for variable in (*self.totals.values(), self.weight, self.examples):
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def begin_late(self, key: str) -> None:
        """Starts a metric that was not computed for the examples so far.

        Its mean over the epoch is then unknown: it is NaN until the next `reset`. At
        the beginning of an epoch no example is missing, and nothing is changed.
        """
        total = self.totals[key]
        if float(value_of(self.weight)):
            total.assign(tf.fill(total.shape, tf.constant(float("nan"), tf.float64)))


def _loss_first(name: str) -> tuple[bool, str]:
    return name != "loss", name
