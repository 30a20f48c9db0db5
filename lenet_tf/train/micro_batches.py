"""A replica's share of a batch in equal parts, one after the other.

    sums = sum_over_parts(gradients_of, batch, 4)     # equals gradients_of(batch)

Each part is a micro-batch. Only the activations of one part are in memory at a time, so
the batch can be larger than what fits at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.nn.random import SEED
from lenet_tf.train.inner_loop import Batch, dimensions
from lenet_tf.train.preview import Preview

Sum = TypeVar("Sum")  # a nest of tensors


def sum_over_parts(function: Callable[[Batch], Sum], batch: Batch, parts: int) -> Sum:
    """Adds up what a function returns for each part of a batch.

    Half-precision tensors are added up in float32, and rounded at the end.

    Args:
      function: Function of a part, name -> [B / parts, ...], that returns a nest of
        float tensors whose shapes do not depend on B.
      batch: Batch, name -> [B, ...]. Its entry `seed` is not divided.
      parts: Number of parts: consecutive examples, the same number in each.

    Returns:
      The sums, in the nest that the function returns.

    Raises:
      UsageError: The batch cannot be divided; or the function changes a variable or
        communicates with other replicas, so the parts would give another result.
    """
    check_parts(parts)
    rows = batch[WEIGHT].shape[0]
    if rows % parts:
        raise UsageError(
            f"a replica's {rows} rows cannot be divided into {parts} equal parts: make "
            f"the trainer with micro_batches={parts}, which pads the batch"
        )
    divided: dict[str, tf.Tensor] = {}
    for name, value in batch.items():
        if name != SEED:
            if not value.shape.rank or value.shape[0] != rows:
                raise UsageError(
                    f"the batch's {name!r} has shape {value.shape}, not one entry for "
                    f"each of {rows} rows, so it cannot be divided: keep it out of the "
                    "batch"
                )
            divided[name] = tf.reshape(
                value, [parts, rows // parts, *dimensions(value, 1)]
            )
    whole = {SEED: batch[SEED]} if SEED in batch else {}

    def of_part(i: tf.Tensor) -> Sum:
        part = {name: values[i] for name, values in divided.items()}
        return function({name: (part | whole)[name] for name in batch})

    # Traced before the loop, which must begin with zeros of the sums' shapes.
    traced = _trace(of_part, parts)

    def add(i: tf.Tensor, sums: Sum) -> tuple[tf.Tensor, Sum]:
        return i + 1, tf.nest.map_structure(
            lambda total, value: total + tf.cast(value, total.dtype), sums, traced(i)
        )

    like = traced.structured_outputs
    zeros = tf.nest.map_structure(lambda t: tf.zeros(t.shape, _wide(t.dtype)), like)
    _, sums = tf.while_loop(
        lambda i, _: i < parts, add, (tf.constant(0), zeros), parallel_iterations=1
    )
    return tf.nest.map_structure(lambda t, total: tf.cast(total, t.dtype), like, sums)


def check_parts(parts: int) -> None:
    """Raises UsageError if `parts` is not a whole number above 0."""
    if not isinstance(parts, int) or parts < 1:
        raise UsageError(f"micro_batches is {parts!r}: give a whole number, 1 or more")


def check_no_writes(
    seen: Preview, variables: Sequence[tf.Variable], parts: int
) -> None:
    """Refuses a function of a part that changes variables.

    Args:
      seen: Trace of the function.
      variables: Variables to look at.
      parts: Number of parts.

    Raises:
      UsageError: The function changes one of the variables.
    """
    for write in seen.writes(variables):
        raise UsageError(
            f"micro_batches is {parts}, but {write.variable.name.split(':')[0]} is "
            "changed in the forward pass, and each part would change it again: use "
            f"micro_batches=1, or {_REMEDY}"
        )


_REMEDY = (
    "a model without such a layer; batch normalization that is called with "
    "training=False changes nothing"
)


def _trace(
    of_part: Callable[[tf.Tensor], Sum], parts: int
) -> tf.types.experimental.ConcreteFunction:
    function = tf.function(of_part, autograph=False)
    try:
        traced = function.get_concrete_function(tf.TensorSpec([], tf.int32))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise UsageError(
            f"micro_batches is {parts}, but the forward pass adds up numbers over the "
            "replicas, which must be those of the whole batch: use micro_batches=1, or "
            f"{_REMEDY}"
        ) from error
    check_no_writes(Preview(traced.graph, None, {}), traced.graph.variables, parts)
    return traced


def _wide(dtype: tf.DType) -> tf.DType:
    return tf.float32 if dtype.size < 4 else dtype
