"""Exact fast forms of operations, each held to its plain form by a test.

    maps = ops.conv2d(x, w)                           # as tf.nn.conv2d, VALID, stride 1
    pooled = ops.conv_pool(x, w, b, tf.tanh, "average")
    with ops.plain_forms():                           # the same numbers, the slow way
        ...

"Exact" is: the same parameters and the same result but for the order in which floats
are summed. Where a fast form does not apply (odd sizes, other kernels) the plain one is
taken. Which one is decided when the graph is traced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

# Of the process, not of a thread: a strategy traces its replicas in threads of its own.
_fast = True


def fast() -> bool:
    """Tells whether fast forms are taken where they apply."""
    return _fast


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Takes plain forms only, in what is traced or run within."""
    global _fast
    before, _fast = _fast, False
    try:
        yield
    finally:
        _fast = before


def conv2d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """Convolves with stride 1 and no padding.

    Fast forms: a kernel as large as its input is a matrix product. A 5x5 kernel on even
    sizes has the gradient of its input computed on blocks of 2x2 pixels, where the same
    products meet longer vectors.

    Args:
      x: float [B, H, W, in].
      w: float [k, k, in, out].

    Returns:
      float [B, H - k + 1, W - k + 1, out].
    """
    size, height, width = w.shape[0], x.shape[1], x.shape[2]
    if not _fast:
        return _conv2d(x, w)
    if (height, width) == (size, w.shape[1]):
        product = tf.matmul(_flat(x), tf.reshape(w, [-1, w.shape[3]]))
        return product[:, None, None, :]
    if size == w.shape[1] and size % 2 and height % 2 == width % 2 == 0:
        return _conv2d_with_block_gradient(x, w)
    return _conv2d(x, w)


def conv_pool(
    x: tf.Tensor,
    w: tf.Tensor,
    b: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor],
    pool: str,
) -> tf.Tensor:
    """Convolves, activates, and pools windows of 2x2.

    Fast forms: with the kernel placed at the four offsets of a window in one kernel of
    one more row and column, a convolution of stride 2 gives the window's four values as
    four groups of channels; the activation acts on each value alone, so pooling is over
    the groups. And a maximum may be taken first, of a quarter of the values then bias
    and activation follow: they keep the order of values.

    Args:
      x: float [B, H, W, in].
      w: float [k, k, in, out].
      b: float [out].
      activation: element-wise and non-decreasing.
      pool: "average" or "max".

    Returns:
      float [B, (H - k + 1) / 2, (W - k + 1) / 2, out], rounded down.
    """
    rows, columns = x.shape[1] - w.shape[0] + 1, x.shape[2] - w.shape[1] + 1
    if not _fast:
        maps = activation(tf.nn.bias_add(_conv2d(x, w), b))
        pooling = tf.nn.avg_pool2d if pool == "average" else tf.nn.max_pool2d
        return pooling(maps, 2, 2, "VALID")
    # Of few input channels: else the zeros in the larger kernel cost what they save.
    if rows % 2 or columns % 2 or w.shape[2] > 3:
        if pool == "max":
            pooled = tf.nn.max_pool2d(conv2d(x, w), 2, 2, "VALID")
            return activation(tf.nn.bias_add(pooled, b))
        maps = activation(tf.nn.bias_add(conv2d(x, w), b))
        return tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    blocks = tf.nn.conv2d(x, _four_offsets(w), strides=2, padding="VALID")
    if pool == "max":
        return activation(tf.nn.bias_add(_group_max(blocks), b))
    return _group_mean(activation(tf.nn.bias_add(blocks, tf.tile(b, [4]))))


def _group_mean(blocks: tf.Tensor) -> tf.Tensor:
    """Averages four groups of channels: [B, H, W, 4 * C] -> [B, H, W, C]."""
    _, height, width, grouped = blocks.shape
    channels = grouped // 4
    # As a matrix product its gradient is one too, which beats a broadcast.
    mean = tf.constant(np.tile(np.eye(channels) / 4, (4, 1)), blocks.dtype)
    pooled = tf.matmul(tf.reshape(blocks, [-1, grouped]), mean)
    return tf.reshape(pooled, [-1, height, width, channels])


@tf.custom_gradient
def _group_max(
    blocks: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Takes the largest of four groups of channels: [..., 4 * C] -> [..., C].

    The gradient goes to one of them, of equals to the upper and left one.
    """
    half = blocks.shape[-1] // 2
    upper, lower = blocks[..., :half], blocks[..., half:]
    both = tf.maximum(upper, lower)
    left, right = both[..., : half // 2], both[..., half // 2 :]

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        to_left = upstream * tf.cast(left >= right, upstream.dtype)
        to_both = tf.concat([to_left, upstream - to_left], axis=-1)
        to_upper = to_both * tf.cast(upper >= lower, upstream.dtype)
        return tf.concat([to_upper, to_both - to_upper], axis=-1)

    return tf.maximum(left, right), gradient


def _conv2d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, w, strides=1, padding="VALID")


@tf.custom_gradient
def _conv2d_with_block_gradient(
    x: tf.Tensor, w: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        filter_gradient = tf.raw_ops.Conv2DBackpropFilter(
            input=x,
            filter_sizes=w.shape,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        batch, (_, height, width, channels) = tf.shape(x)[0], x.shape
        blocks = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[batch, height // 2, width // 2, 4 * channels],
            filter=_block_kernel(w),
            out_backprop=tf.nn.space_to_depth(upstream, 2),
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return tf.nn.depth_to_space(blocks, 2), filter_gradient

    return _conv2d(x, w), gradient


def _four_offsets(w: tf.Tensor) -> tf.Tensor:
    """[k, k, in, out] -> [k + 1, k + 1, in, 4 * out], the kernel at 2x2 offsets."""
    return tf.concat(
        [
            tf.pad(w, [[down, 1 - down], [right, 1 - right], [0, 0], [0, 0]])
            for down in (0, 1)
            for right in (0, 1)
        ],
        axis=-1,
    )


def _block_kernel(w: tf.Tensor) -> tf.Tensor:
    """[k, k, in, out] -> [(k+1)/2, (k+1)/2, 4 * in, 4 * out], between 2x2 blocks."""
    half, channels = (w.shape[0] + 1) // 2, w.shape[2]
    offsets = tf.reshape(_four_offsets(w), [half, 2, half, 2, channels, -1])
    offsets = tf.transpose(offsets, [0, 2, 1, 3, 4, 5])
    return tf.reshape(offsets, [half, half, 4 * channels, -1])


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
