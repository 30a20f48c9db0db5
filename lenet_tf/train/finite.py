"""Checks tensors for NaN and infinity.

    finite = all_finite(gradient, loss)               # in the graph, a bool scalar

The inner loop ends after the first step whose loss or gradient is not finite, and
nothing of that loop is saved.
"""

from __future__ import annotations

import tensorflow as tf


def all_finite(*tensors: tf.Tensor) -> tf.Tensor:
    """Returns whether all entries of float tensors are finite, bool scalar.

    Checks each tensor's sum, which one NaN or infinity makes non-finite: a single pass
    without a temporary tensor. A sum that overflows counts as non-finite too.
    """
    sums: dict[tf.DType, list[tf.Tensor]] = {}
    for tensor in tensors:
        if tensor.dtype not in (tf.float32, tf.float64):
            tensor = tf.cast(tensor, tf.float32)  # a sum of halves could overflow
        sums.setdefault(tensor.dtype, []).append(tf.reduce_sum(tensor))
    finite = [tf.math.is_finite(tf.add_n(alike)) for alike in sums.values()]
    return finite[0] if len(finite) == 1 else tf.reduce_all(tf.stack(finite))
