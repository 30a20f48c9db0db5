"""Gradient clipping.

gradient = clip_by_norm(gradient, 1.0)
"""

from __future__ import annotations

import tensorflow as tf


def clip_by_norm(gradient: tf.Tensor, clip_norm: float) -> tf.Tensor:
    """Scales a gradient, taken as one vector, to a norm of at most `clip_norm`.

    A gradient with a NaN or infinite entry is returned as it is: scaling would turn
    all other entries into NaN or 0.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.

    Args:
      gradient: Gradient of all variables, float [N].
      clip_norm: Largest norm, above 0.

    Returns:
      The gradient, of the same shape and dtype.
    """
    if gradient.dtype in (tf.float16, tf.bfloat16):  # whose squares overflow or vanish
        wide = clip_by_norm(tf.cast(gradient, tf.float32), clip_norm)
        return tf.cast(wide, gradient.dtype)
    norm = tf.norm(gradient)

    def clipped() -> tf.Tensor:
        scale = clip_norm / tf.maximum(norm, clip_norm)
        return gradient * tf.where(tf.math.is_finite(norm), scale, 1.0)

    def clipped_in_two_steps() -> tf.Tensor:
        # The sum of squares has overflowed, though perhaps no entry has: divide by the
        # largest entry first.
        largest = tf.reduce_max(tf.abs(gradient))
        scaled = gradient / largest
        scaled = scaled * (clip_norm / tf.norm(scaled))
        return tf.where(tf.math.is_finite(largest), scaled, gradient)

    return tf.cond(tf.math.is_inf(norm), clipped_in_two_steps, clipped)
