"""Sums over all replicas, and updates of each replica's own copy of a variable.

In a replica context, as in a function that `strategy.run` calls:

    loss, count = all_reduce_sum([loss, count])
    local_assign_add(step, 1)                # each replica updates its own copy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

try:
    from tensorflow.python.eager import record
except ImportError:  # not public: a version of TensorFlow may have it elsewhere
    record = None

_GRADIENT = "LenetTfAllReduceSum"


def all_reduce_sum(
    tensors: Sequence[tf.Tensor], differentiable: bool = True
) -> list[tf.Tensor]:
    """Sums tensors over the replicas, with one all-reduce for each dtype.

    Must be called in a replica context. Every replica gets the same sums.

    Args:
      tensors: Tensors of static shapes and of any float or integer dtypes.
      differentiable: Whether a gradient can be taken through the sums.

    Returns:
      The sums, in the same order, shapes and dtypes.
    """
    sums = dict[int, tf.Tensor]()
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        same = [tensors[i] for i in places]
        totals = unflatten(all_reduce_flat(flatten(same), differentiable), same)
        sums.update(zip(places, totals, strict=True))
    return [sums[i] for i in range(len(tensors))]


def all_reduce_flat(flat: tf.Tensor, differentiable: bool = False) -> tf.Tensor:
    """Sums a vector over the replicas; otherwise like `all_reduce_sum`."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return flat
    if differentiable:
        return _differentiable_sum(flat)
    on_cpu = all("CPU" in device for device in context.strategy.extended.worker_devices)
    mirrored = isinstance(context.strategy, tf.distribute.MirroredStrategy)
    if not (mirrored and on_cpu):
        return context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    # The same operations, but TensorFlow's all_reduce registers a gradient at every
    # trace, which keeps the graph in memory for as long as the process lives.
    return context.merge_call(_sum_replicas, args=(flat,))


def _differentiable_sum(flat: tf.Tensor) -> tf.Tensor:
    """Sums over the replicas; the gradient of the sum is such a sum again.

    TensorFlow looks for variables that a custom gradient depends on, backwards through
    the operations of the other replicas, unless `stop_gradient` ends the search. It
    would take the square of the number of layers with batch normalization.
    """
    if tf.executing_eagerly() or record is None:
        return _with_custom_gradient(flat)
    # What `tf.custom_gradient` does in a graph, but with one gradient that is
    # registered once: it registers another one at every trace, which keeps the graph
    # in memory for as long as the process lives.
    with record.stop_recording():
        total = all_reduce_flat(tf.stop_gradient(flat))
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map({"IdentityN": _GRADIENT}):
            total, _ = tf.identity_n([total, flat])
    record.record_operation(
        _GRADIENT, [total], [flat], lambda gradient: [_differentiable_sum(gradient)]
    )
    return total


@tf.RegisterGradient(_GRADIENT)
def _gradient_of_sum(
    operation: tf.Operation, of_sum: tf.Tensor, of_input: tf.Tensor
) -> list[tf.Tensor | None]:
    """Returns the gradients of an IdentityN of a sum and what was summed."""
    return [None, _differentiable_sum(of_sum)]


@tf.custom_gradient
def _with_custom_gradient(
    flat: tf.Tensor,
) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
    return all_reduce_flat(tf.stop_gradient(flat)), _with_custom_gradient


def _sum_replicas(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    return strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, value, value)


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenates tensors of one dtype into a vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unflatten(flat: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Splits a vector into tensors with the static shapes of those in `like`."""
    parts = tf.split(flat, [tensor.shape.num_elements() for tensor in like])
    return [tf.reshape(p, t.shape) for p, t in zip(parts, like, strict=True)]


def local_handle(variable: tf.Variable) -> tf.Tensor:
    """Returns the resource handle of this replica's own copy of a variable.

    All replicas make the same update from the same all-reduced values, so the copies
    stay equal without the communication that `variable.assign` involves.
    """
    return variable.handle


def local_assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns a value to this replica's own copy of a variable; see `local_handle`."""
    value = tf.convert_to_tensor(value, variable.dtype)
    tf.raw_ops.AssignVariableOp(
        resource=local_handle(variable), value=value, validate_shape=True
    )


def local_assign_add(variable: tf.Variable, value: tf.Tensor) -> None:
    """Adds a value to this replica's own copy of a variable; see `local_handle`."""
    value = tf.convert_to_tensor(value, variable.dtype)
    tf.raw_ops.AssignAddVariableOp(resource=local_handle(variable), value=value)


def value_of(variable: tf.Variable) -> np.ndarray:
    """Returns the value of a variable, read from this worker's first copy.

    `variable.numpy()` of a distributed variable takes ten times as long, too long for
    values that are read between inner loops.
    """
    copies: Sequence[tf.Variable] = getattr(variable, "values", (variable,))
    return copies[0].numpy()
