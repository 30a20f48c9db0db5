"""Random numbers that are a pure function of (seed, step, example).

    noise = uniform(batch, [84], salt=1)      # [B, 84] in [0, 1)

Nothing is drawn from a generator, so a run that is killed and resumed, or spread over
other replicas, meets the same numbers. In training the loop adds to a batch what keys
them: `position` int32 [B], an example's place in the global batch, and `seed` int64
[2], made of the run's seed and the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

POSITION = "position"
SEED = "seed"


def uniform(
    batch: Mapping[str, tf.Tensor], shape: Sequence[int], salt: int = 0
) -> tf.Tensor:
    """Draws numbers from U[0, 1) for each example of a replica's batch.

    Args:
      batch: with `position` and `seed`, as the training loop gives it.
      shape: of one example's numbers.
      salt: another number for each use in a step.

    Returns:
      float32 [B, *shape].
    """
    seed = tf.random.experimental.stateless_fold_in(batch[SEED], salt)
    # The generator counts along the flat tensor: the rows of a shorter one are the
    # first rows of a longer one, so each replica finds its rows of the global batch.
    rows = tf.reduce_max(batch[POSITION]) + 1
    table = tf.random.stateless_uniform([rows, *shape], seed)
    return tf.ensure_shape(
        tf.gather(table, batch[POSITION]), [batch[POSITION].shape[0], *shape]
    )


def dropout(
    batch: Mapping[str, tf.Tensor], x: tf.Tensor, rate: float, salt: int = 0
) -> tf.Tensor:
    """Sets each number to zero with probability `rate`, and scales the others up.

    For training only. Source: Srivastava et al., "Dropout", JMLR 2014, section 10, in
    the form that scales in training.

    Args:
      batch: with `position` and `seed`.
      x: float32 [B, ...].
      rate: in [0, 1).
      salt: another number for each use in a step.

    Returns:
      float32 of x's shape.
    """
    kept = uniform(batch, x.shape[1:], salt) >= rate
    return tf.where(kept, x / (1.0 - rate), tf.zeros([], x.dtype))
