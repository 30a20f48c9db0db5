"""Random numbers that are a pure function of (seed, step, example).

    noise = uniform(batch, [84], salt=1)      # [B, 84] in [0, 1)
    noise = normal(batch, [84], salt=2)       # [B, 84], mean 0 and variance 1

No generator keeps a state, so a run that is resumed, or has another number of replicas,
draws the same numbers. They are computed from two entries that the trainer adds to each
batch. `position`, int32 [B], is each example's place in the global batch, and `seed`,
int64 [2], holds the run's seed and the step. In an evaluation, `position` is the place
among all examples and `seed` is constant, so that the batch size does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError

POSITION = "position"
SEED = "seed"

# With one seed, each number depends on its index in the flat tensor only, which
# `uniform` relies on. It is also TensorFlow's default on CPUs and GPUs.
_GENERATOR = "philox"
_PHILOX = 1  # its number in TensorFlow's operations
_PER_COUNT = 4


def uniform(
    batch: Mapping[str, tf.Tensor], shape: Sequence[int], *, salt: int
) -> tf.Tensor:
    """Draws numbers from U[0, 1) for each example of a replica's batch.

    Args:
      batch: Batch with `position` and `seed`, as the trainer gives it.
      shape: Shape of one example's numbers.
      salt: Integer, different for each call in a step: two calls with the same salt
        draw the same numbers.

    Returns:
      float32 [B, *shape].

    Raises:
      UsageError: The batch has no `position` or no `seed`.
    """
    for name, form in ((POSITION, "int32 [batch]"), (SEED, "int64 [2]")):
        if name not in batch:
            raise UsageError(
                f"the batch has no {name!r}, which random numbers depend on: hand on "
                f"the batch that the trainer gives to forward, or add {name!r}, {form}"
            )
    seed = tf.random.experimental.stateless_fold_in(batch[SEED], salt, alg=_GENERATOR)
    position = batch[POSITION]
    first = tf.reduce_min(position)
    rows = tf.reduce_max(position) - first + 1
    table = _rows_of_table(seed, first, rows, shape)
    return tf.ensure_shape(
        tf.gather(table, position - first), [position.shape[0], *shape]
    )


def _rows_of_table(
    seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, shape: Sequence[int]
) -> tf.Tensor:
    """Returns some rows of the table that `tf.random.stateless_uniform` would draw.

    Philox makes four numbers for each value of a counter, so it can begin at any row.
    """
    size = math.prod(shape)
    start = tf.cast(first, tf.int64) * size
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    begun = tf.cast(start // _PER_COUNT, tf.uint64)
    counter = tf.stack([counter[0] + begun, counter[1]])
    skipped = tf.cast(start % _PER_COUNT, tf.int32)
    flat = tf.raw_ops.StatelessRandomUniformV2(
        shape=[skipped + rows * size], key=key, counter=counter, alg=_PHILOX
    )
    return tf.reshape(flat[skipped:], [rows, *shape])


def normal(
    batch: Mapping[str, tf.Tensor], shape: Sequence[int], *, salt: int
) -> tf.Tensor:
    """Draws numbers from N(0, 1) for each example; see `uniform`.

    They are quantiles of the normal distribution at the midpoints of 2**23 equal parts
    of (0, 1), so none is beyond 5.3 standard deviations.
    """
    return tf.math.ndtri(uniform(batch, shape, salt=salt) + 2.0**-24)


def dropout(
    batch: Mapping[str, tf.Tensor], x: tf.Tensor, rate: float, *, salt: int
) -> tf.Tensor:
    """Sets each number to zero with probability `rate`, and scales the others up.

    Call it in training only. Source: Srivastava et al., "Dropout", JMLR 2014, section
    10, in the form that scales in training.

    Args:
      batch: Batch with `position` and `seed`, as the trainer gives it.
      x: Features, float [B, ...].
      rate: Probability, in [0, 1).
      salt: Integer, different for each call in a step; see `uniform`.

    Returns:
      Tensor of x's shape and dtype.

    Raises:
      UsageError: `rate` is not in [0, 1), or the batch has no `position` or `seed`.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"the rate of dropout is {rate}: it must be in [0, 1)")
    kept = uniform(batch, x.shape[1:], salt=salt) >= rate
    return tf.where(kept, x / (1.0 - rate), tf.zeros([], x.dtype))
