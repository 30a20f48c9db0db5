"""Random numbers that are a pure function of (seed, step, example).

    noise = uniform(batch, [84], salt=1)      # [B, 84] in [0, 1)

No generator keeps a state, so a run that is resumed, or has another number of replicas,
draws the same numbers. The trainer adds to each batch what they are computed from:
`position` int32 [B], the place of each example in the global batch, and `seed` int64
[2], the run's seed and the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError

POSITION = "position"
SEED = "seed"

# With one seed, each number depends on its index in the flat tensor only, which
# `uniform` relies on. It is also TensorFlow's default on CPUs and GPUs.
_GENERATOR = "philox"


def uniform(
    batch: Mapping[str, tf.Tensor], shape: Sequence[int], *, salt: int
) -> tf.Tensor:
    """Draws numbers from U[0, 1) for each example of a replica's batch.

    Args:
      batch: Batch with `position` and `seed`, as the trainer gives it.
      shape: Shape of one example's numbers.
      salt: Integer of your choice, different for each call in a step: two calls with
        the same salt draw the same numbers.

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
    # A shorter table equals the first rows of a longer one. So each replica draws only
    # up to its last row, and gets its rows of the global batch's table.
    rows = tf.reduce_max(batch[POSITION]) + 1
    table = tf.random.stateless_uniform([rows, *shape], seed, alg=_GENERATOR)
    return tf.ensure_shape(
        tf.gather(table, batch[POSITION]), [batch[POSITION].shape[0], *shape]
    )


def dropout(
    batch: Mapping[str, tf.Tensor], x: tf.Tensor, rate: float, *, salt: int
) -> tf.Tensor:
    """Sets each number to zero with probability `rate`, and scales the others up.

    For training only. Source: Srivastava et al., "Dropout", JMLR 2014, section 10, in
    the form that scales in training.

    Args:
      batch: Batch with `position` and `seed`, as the trainer gives it.
      x: Features, float [B, ...].
      rate: Probability, in [0, 1).
      salt: Integer of your choice, different for each call in a step; see `uniform`.

    Returns:
      Tensor of x's shape and dtype.

    Raises:
      UsageError: `rate` is out of its range, or the batch has no `position` or `seed`.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"the rate of dropout is {rate}: it must be in [0, 1)")
    kept = uniform(batch, x.shape[1:], salt=salt) >= rate
    return tf.where(kept, x / (1.0 - rate), tf.zeros([], x.dtype))
