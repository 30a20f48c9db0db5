"""Activations by name: element-wise functions between layers.

    activation = ACTIVATIONS.get("tanh")
    maps = activation(conv(images))

Each must be a non-decreasing function: `conv_pool` computes max(x) before it, not after
it, where that is faster.
"""

from __future__ import annotations

import tensorflow as tf

from lenet_tf.registry import Registry

ACTIVATIONS: Registry[tf.Tensor] = Registry("activation", positional=1)


@ACTIVATIONS.register("tanh")
def tanh(x: tf.Tensor) -> tf.Tensor:
    """Computes the hyperbolic tangent.

    LeCun et al., 1998, appendix A, scale it: 1.7159 tanh(2/3 x).
    """
    return tf.tanh(x)


@ACTIVATIONS.register("relu")
def relu(x: tf.Tensor) -> tf.Tensor:
    """Computes max(x, 0)."""
    return tf.nn.relu(x)


@ACTIVATIONS.register("leaky_relu")
def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    """Computes max(x, 0.2 x)."""
    return tf.nn.leaky_relu(x)
