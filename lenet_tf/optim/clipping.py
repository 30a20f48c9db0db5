"""Limits on a gradient.

gradient = clip_by_norm(gradient, 1.0)
"""

from __future__ import annotations

import tensorflow as tf


def clip_by_norm(gradient: tf.Tensor, clip_norm: float) -> tf.Tensor:
    """Scales a whole gradient, as one vector, to a norm of `clip_norm` at most.

    One that is not finite is left as it is, so that only the variables that were hit
    show it.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.
    """
    norm = tf.norm(gradient)
    scale = clip_norm / tf.maximum(norm, clip_norm)
    return gradient * tf.where(tf.math.is_finite(norm), scale, 1.0)
