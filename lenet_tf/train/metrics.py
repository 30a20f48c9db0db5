"""Metrics as sums and counts, divided once at the end.

    metrics = Accumulators({"loss": [], "accuracy": []})
    metrics.update(weighted_sums({"loss": loss, "accuracy": hit}, weight))
    metrics.result()["accuracy"]          # sum of w * v / sum of w
    metrics.examples.numpy()              # examples of weight > 0, counted one by one

A mean of means appears nowhere, so the figures do not depend on how examples were
spread over batches or replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.parallel.collectives import local_assign_add, value_of

Values: TypeAlias = Mapping[str, tf.Tensor]  # of a batch: name -> [B, ...]
Sums: TypeAlias = dict[str, tf.Tensor]  # over its examples: name -> [...]

EXAMPLES = "examples"


def weighted_sums(values: Values, weight: tf.Tensor) -> Sums:
    """Sums per-example values over a batch.

    Args:
      values: Name -> number or Boolean [B, ...].
      weight: float32 [B]; an example of weight 0 does not count, whatever its value.

    Returns:
      Name -> sum of weight * value [...], float64 for float64 values and else float32;
      and under `weight` and `examples` the sum of the weights and the number of
      examples with a weight above 0, float32. Counts are exact up to 2**24 examples a
      batch.
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
    """Running sums of per-example values, alike on every replica.

    Args:
      shapes: Name -> shape of one example's value. Scalars are averaged; what has axes,
        such as a confusion matrix, is summed.

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
          sums: As `weighted_sums` gives them.
        """
        for key, total in self.totals.items():
            local_assign_add(total, tf.cast(sums[key], tf.float64))
        local_assign_add(self.weight, tf.cast(sums[WEIGHT], tf.float64))
        local_assign_add(self.examples, tf.cast(sums[EXAMPLES], tf.int64))

    @property
    def names(self) -> list[str]:
        """The names of the scalars, which `result` has."""
        return [k for k, total in self.totals.items() if total.shape.rank == 0]

    def result(self) -> dict[str, float]:
        """Returns name -> weighted mean of scalars; NaN if nothing was accumulated."""
        weight = float(value_of(self.weight))
        return {
            key: float(value_of(self.totals[key])) / weight if weight else float("nan")
            for key in self.names
        }

    def sums(self) -> dict[str, np.ndarray]:
        """Returns name -> weighted sum, float64, of the values that have axes."""
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
        """Lets a metric begin here that the examples so far were not counted in.

        Its mean over them is not known, so it is NaN until the next `reset`; at an
        epoch's beginning nothing is missing.
        """
        total = self.totals[key]
        if float(value_of(self.weight)):
            total.assign(tf.fill(total.shape, tf.constant(float("nan"), tf.float64)))


def _loss_first(name: str) -> tuple[bool, str]:
    return name != "loss", name
