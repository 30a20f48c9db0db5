"""How the numbers of replicas come together, and how each keeps its own copy of them.

sums = all_reduce_sum([loss, count])     # in a replica context; alike on every replica
local_assign_add(step, 1)                # each replica updates its own copy
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def all_reduce_sum(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums float32 tensors over the replicas, as one flat vector in one all-reduce.

    Must be called in a replica context; every replica gets the same sums.

    Args:
      tensors: float32, of static shapes.

    Returns:
      The sums, in the same order and shapes.
    """
    return unflatten(all_reduce_flat(flatten(tensors)), tensors)


def all_reduce_flat(flat: tf.Tensor) -> tf.Tensor:
    """Sums a float32 vector over the replicas; see `all_reduce_sum`."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return flat
    return context.all_reduce(tf.distribute.ReduceOp.SUM, flat)


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Lays tensors of one dtype end to end, in one vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unflatten(flat: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Cuts a vector into tensors of the (static) shapes of others."""
    parts = tf.split(flat, [tensor.shape.num_elements() for tensor in like])
    return [tf.reshape(p, t.shape) for p, t in zip(parts, like, strict=True)]


def local_handle(variable: tf.Variable) -> tf.Tensor:
    """Returns the resource of this replica's own copy of a variable.

    Every replica makes the same update from the same all-reduced numbers, so the copies
    stay alike without being sent around; `variable.assign` would send them.
    """
    return variable.handle


def local_assign_add(variable: tf.Variable, value: tf.Tensor) -> None:
    """Adds a value to this replica's own copy of a variable; see `local_handle`."""
    tf.raw_ops.AssignAddVariableOp(resource=local_handle(variable), value=value)


def value_of(variable: tf.Variable) -> np.ndarray:
    """Returns the value of this worker's first copy of a variable; all are alike.

    `variable.numpy()` of a distributed one takes ten times as long, which is felt when
    it is asked for between inner loops.
    """
    copies: Sequence[tf.Variable] = getattr(variable, "values", (variable,))
    return copies[0].numpy()
