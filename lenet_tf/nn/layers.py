"""Layers: `tf.Module`s with their variables as attributes.

    conv = Conv2D(5, channels=1, filters=6, seed=(0, 1))
    maps = tf.tanh(conv(images))          # [B, 32, 32, 1] -> [B, 28, 28, 6]
    conv.w, conv.b                        # [5, 5, 1, 6] (HWIO), [6]

Initial weights depend only on the seed (stateless random numbers), so a model built
twice, or on another number of devices, starts from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import fast_ops

Seed = tuple[int, int]
Initializer = Callable[[Sequence[int], Seed], tf.Tensor]


def glorot_uniform(shape: Sequence[int], seed: Seed) -> tf.Tensor:
    """Draws weights from U(-l, l) with l = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", AISTATS 2010, equation 16.

    Args:
      shape: Shape [in, out] of a matrix, or [height, width, in, out] of a kernel, where
        fan_in is height * width * in, and fan_out height * width * out.
      seed: Seed of two integers; equal seeds give equal weights.

    Returns:
      float32 tensor of that shape.

    Raises:
      UsageError: The seed is no pair.
    """
    if isinstance(seed, int) or len(seed) != 2:
        raise UsageError(
            f"seed is {seed}: give two integers, such as (0, 1), the run's and the "
            "layer's own, lest two layers start from the same weights"
        )
    receptive_field = math.prod(shape[:-2])
    fan_in, fan_out = shape[-2] * receptive_field, shape[-1] * receptive_field
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return tf.random.stateless_uniform(shape, seed, -limit, limit, alg="philox")


class Conv2D(tf.Module):
    """Convolution with stride 1 and no padding.

    Maps of [B, H, W, channels] become [B, H - size + 1, W - size + 1, filters].

    Args:
      size: Height and width of the kernel.
      channels: Number of channels of the input.
      filters: Number of channels of the output.
      seed: Seed of the initial kernel.
      name: Name of the layer, and prefix of its variables' names.
      initializer: Function from shape and seed to the initial kernel. The bias starts
        at zero.

    Attributes:
      w: Kernel, float32 [size, size, channels, filters] (HWIO).
      b: Bias, float32 [filters].
    """

    def __init__(
        self,
        size: int,
        channels: int,
        filters: int,
        seed: Seed,
        name: str = "conv",
        initializer: Initializer = glorot_uniform,
    ) -> None:
        super().__init__(name=name)
        kernel = initializer([size, size, channels, filters], seed)
        self.w = tf.Variable(kernel, name=f"{name}/w")
        self.b = tf.Variable(tf.zeros([filters]), name=f"{name}/b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves float maps [B, H, W, channels]; the arithmetic has their dtype."""
        maps = fast_ops.conv2d(x, tf.cast(self.w, x.dtype))
        return tf.nn.bias_add(maps, tf.cast(self.b, x.dtype))


class Dense(tf.Module):
    """Fully connected layer: features [B, inputs] become [B, outputs].

    Args:
      inputs: Number of features of the input.
      outputs: Number of features of the output.
      seed: Seed of the initial matrix.
      name: Name of the layer, and prefix of its variables' names.
      initializer: Function from shape and seed to the initial matrix. The bias starts
        at zero.

    Attributes:
      w: Matrix, float32 [inputs, outputs].
      b: Bias, float32 [outputs].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        seed: Seed,
        name: str = "dense",
        initializer: Initializer = glorot_uniform,
    ) -> None:
        super().__init__(name=name)
        self.w = tf.Variable(initializer([inputs, outputs], seed), name=f"{name}/w")
        self.b = tf.Variable(tf.zeros([outputs]), name=f"{name}/b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps float features [B, inputs]; the arithmetic has their dtype."""
        product = tf.matmul(x, tf.cast(self.w, x.dtype))
        return tf.nn.bias_add(product, tf.cast(self.b, x.dtype))


class Subsample(tf.Module):
    """Halves height and width by pooling windows of 2x2 pixels.

    Maps of [B, H, W, C] become [B, H / 2, W / 2, C]; an odd last row or column is left
    out.

    Args:
      kind: Kind of pooling: "average_sigmoid" (the mean, then a sigmoid), "average" or
        "max".
      name: Name of the layer.
    """

    KINDS = ("average_sigmoid", "average", "max")

    def __init__(self, kind: str, name: str = "subsample") -> None:
        super().__init__(name=name)
        if kind not in self.KINDS:
            raise UsageError(f"kind is {kind!r}: choose one of {', '.join(self.KINDS)}")
        self.kind = kind
        self.pool = "max" if kind == "max" else "average"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Subsamples maps [B, H, W, C]."""
        pooling = tf.nn.max_pool2d if self.pool == "max" else tf.nn.avg_pool2d
        return self.after_pooling(pooling(x, 2, 2, "VALID"))

    def after_pooling(self, pooled: tf.Tensor) -> tf.Tensor:
        """Applies what follows the mean or maximum: the sigmoid, or nothing."""
        return tf.sigmoid(pooled) if self.kind == "average_sigmoid" else pooled
