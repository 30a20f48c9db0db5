"""Layers as `tf.Module`s with their variables in plain sight.

    conv = Conv2D(5, channels=1, filters=6, seed=(0, 1))
    maps = tf.tanh(conv(images))          # [B, 32, 32, 1] -> [B, 28, 28, 6]
    conv.w, conv.b                        # [5, 5, 1, 6] (HWIO), [6]

Initial weights are a pure function of the seed (stateless random numbers), so a model
built twice, or on another number of devices, starts from the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.nn import fast_ops
from lenet_tf.nn.activations import ACTIVATIONS as ACTIVATIONS

Seed = tuple[int, int]


def glorot_uniform(shape: Sequence[int], seed: Seed) -> tf.Tensor:
    """Draws weights from U(-l, l) with l = sqrt(6 / (fan_in + fan_out)).

    Args:
      shape: [in, out] of a matrix or [height, width, in, out] of a kernel; the fans of
        a kernel count its receptive field.
      seed: two integers; equal seeds give equal weights.

    Returns:
      A float32 tensor of that shape.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", AISTATS 2010, equation 16.
    """
    receptive_field = math.prod(shape[:-2])
    fan_in, fan_out = shape[-2] * receptive_field, shape[-1] * receptive_field
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


class Conv2D(tf.Module):
    """Convolution, stride 1, no padding: [B, H, W, in] -> [B, H-k+1, W-k+1, out].

    Attributes:
      w: float32 kernel [size, size, channels, filters] (HWIO).
      b: float32 bias [filters].

    Args:
      size: of the kernel.
      channels: of the input.
      filters: of the output.
      seed: of the initial kernel.
      name: of the variables.
      undo_sigmoid: whether to start from weights that take a sigmoid before this layer
        out again: near 0 it is 1/2 + x/4, so the kernel is Glorot's times 4, and the
        bias minus half of its sum.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        filters: int,
        seed: Seed,
        name: str = "conv",
        undo_sigmoid: bool = False,
    ) -> None:
        super().__init__(name=name)
        kernel = glorot_uniform([size, size, channels, filters], seed)
        bias = tf.zeros([filters])
        if undo_sigmoid:
            kernel = 4 * kernel
            bias = -tf.reduce_sum(kernel, axis=[0, 1, 2]) / 2
        self.w = tf.Variable(kernel, name=f"{name}/w")
        self.b = tf.Variable(bias, name=f"{name}/b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves maps [B, H, W, channels], in their dtype."""
        maps = fast_ops.conv2d(x, tf.cast(self.w, x.dtype))
        return tf.nn.bias_add(maps, tf.cast(self.b, x.dtype))


class Dense(tf.Module):
    """Affine map: [B, in] -> [B, out].

    Attributes:
      w: float32 matrix [in, out].
      b: float32 bias [out].
    """

    def __init__(
        self, inputs: int, outputs: int, seed: Seed, name: str = "dense"
    ) -> None:
        super().__init__(name=name)
        self.w = tf.Variable(glorot_uniform([inputs, outputs], seed), name=f"{name}/w")
        self.b = tf.Variable(tf.zeros([outputs]), name=f"{name}/b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps features [B, in], in their dtype."""
        product = tf.matmul(x, tf.cast(self.w, x.dtype))
        return tf.nn.bias_add(product, tf.cast(self.b, x.dtype))


class Subsample(tf.Module):
    """Halves height and width over 2x2 windows: [B, H, W, C] -> [B, H/2, W/2, C].

    Args:
      kind: "average_sigmoid" (the mean through a sigmoid, the reference's), "average"
        or "max".
    """

    KINDS = ("average_sigmoid", "average", "max")

    def __init__(self, kind: str, name: str = "subsample") -> None:
        super().__init__(name=name)
        self.kind = kind
        self.pool = "max" if kind == "max" else "average"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Subsamples float32 maps; an odd last row or column is left out."""
        pooling = tf.nn.max_pool2d if self.pool == "max" else tf.nn.avg_pool2d
        return self.finish(pooling(x, 2, 2, "VALID"))

    def finish(self, pooled: tf.Tensor) -> tf.Tensor:
        """Does what follows the pooling of a window."""
        return tf.sigmoid(pooled) if self.kind == "average_sigmoid" else pooled
