"""The guard against NaN and infinity.

    finite = all_finite(gradient, loss)               # in the graph, a bool scalar

The loop ends after a step whose loss or gradient is not finite, and the trainer says
which variable was hit, before anything of it is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.errors import NonFiniteError


def all_finite(*tensors: tf.Tensor) -> tf.Tensor:
    """Returns whether no entry is NaN or infinite, bool scalar.

    By sums, which such an entry spoils: one pass without a temporary.
    """
    return tf.math.is_finite(tf.add_n([tf.reduce_sum(t) for t in tensors]))


def non_finite(
    variables: Sequence[tf.Variable], start: int, step: int
) -> NonFiniteError:
    """Makes the error that says what was hit.

    Args:
      variables: as the bad step has left them.
      start: the step that the loop began after.
      step: the bad step.
    """
    hit = [v.name.split(":")[0] for v in variables if not np.isfinite(v.numpy()).all()]
    what = f"the gradient of {hit[0]}" if hit else "the loss"
    return NonFiniteError(
        f"{what} is not finite at step {step} (in the loop of steps {start + 1} to "
        f"{step}): lower the learning rate, clip the gradient, or look at the data"
    )
