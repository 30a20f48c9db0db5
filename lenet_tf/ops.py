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
    height has the gradient of its input computed on pairs of rows, where the same
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
        return tf.reshape(product, [-1, 1, 1, w.shape[3]])
    if size % 2 and height % 2 == 0:
        return _conv2d_with_row_pairs(x, w)
    return _conv2d(x, w)


def conv_pool(
    x: tf.Tensor,
    w: tf.Tensor,
    b: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor],
    pool: str,
) -> tf.Tensor:
    """Convolves, activates, and pools windows of 2x2.

    Fast forms: with the kernel placed at both offsets of a pair of rows in one kernel
    of one more row, a convolution of stride 2 in height gives both rows as two groups
    of channels. The four values of a window then lie side by side in memory, and the
    activation acts on each alone. And a maximum may be taken first, of a quarter of the
    values then bias and activation follow: they keep the order of values.

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
    pairs = tf.nn.conv2d(x, _two_offsets(w), strides=[2, 1], padding="VALID")
    if pool == "max":
        return activation(tf.nn.bias_add(_window_max(pairs), b))
    return _window_mean(activation(tf.nn.bias_add(pairs, tf.tile(b, [2]))))


@tf.custom_gradient
def _window_mean(
    pairs: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Averages windows of pairs of rows: [B, H, W, 2 * C] -> [B, H, W / 2, C].

    As a pooling of 1x4, since the values of a window are neighbours. For the gradient a
    matrix product is faster than that of pooling, or a broadcast.
    """
    _, height, width, grouped = pairs.shape
    channels = grouped // 2

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        share = tf.constant(np.tile(np.eye(channels) / 4, (1, 4)), upstream.dtype)
        shares = tf.matmul(tf.reshape(upstream, [-1, channels]), share)
        return tf.reshape(shares, [-1, height, width, grouped])

    values = tf.reshape(pairs, [-1, height, 2 * width, channels])
    return tf.nn.avg_pool2d(values, [1, 4], [1, 4], "VALID"), gradient


@tf.custom_gradient
def _window_max(
    pairs: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Takes the largest of windows of pairs of rows: [B, H, W, 2 * C] -> [.., W/2, C].

    The gradient goes to one of them; of equals, to the first in the order of pixels.
    """
    _, height, width, grouped = pairs.shape
    windows = tf.reshape(pairs, [-1, height, width // 2, 2 * grouped])
    left, right = windows[..., :grouped], windows[..., grouped:]
    both = tf.maximum(left, right)
    upper, lower = both[..., : grouped // 2], both[..., grouped // 2 :]

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        to_upper = upstream * tf.cast(upper >= lower, upstream.dtype)
        to_both = tf.concat([to_upper, upstream - to_upper], axis=-1)
        to_left = to_both * tf.cast(left >= right, upstream.dtype)
        to_windows = tf.concat([to_left, to_both - to_left], axis=-1)
        return tf.reshape(to_windows, [-1, height, width, grouped])

    return tf.maximum(upper, lower), gradient


def _conv2d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, w, strides=1, padding="VALID")


@tf.custom_gradient
def _conv2d_with_row_pairs(
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
        pairs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[batch, height // 2, width, 2 * channels],
            filter=_between_pairs(w),
            out_backprop=_paired(upstream),
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return _unpaired(pairs), filter_gradient

    return _conv2d(x, w), gradient


def _paired(x: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, H / 2, W, 2 * C], a pair of rows in the channels of one."""
    _, height, width, channels = x.shape
    rows = tf.reshape(x, [-1, 2, width, channels])
    rows = tf.transpose(rows, [0, 2, 1, 3])
    return tf.reshape(rows, [-1, height // 2, width, 2 * channels])


def _unpaired(pairs: tf.Tensor) -> tf.Tensor:
    """[B, H, W, 2 * C] -> [B, 2 * H, W, C], the inverse of `_paired`."""
    _, height, width, grouped = pairs.shape
    rows = tf.reshape(pairs, [-1, width, 2, grouped // 2])
    rows = tf.transpose(rows, [0, 2, 1, 3])
    return tf.reshape(rows, [-1, 2 * height, width, grouped // 2])


def _two_offsets(w: tf.Tensor) -> tf.Tensor:
    """[k, l, in, out] -> [k + 1, l, in, 2 * out], the kernel at rows 0 and 1."""
    at = [tf.pad(w, [[down, 1 - down], [0, 0], [0, 0], [0, 0]]) for down in (0, 1)]
    return tf.concat(at, axis=-1)


def _between_pairs(w: tf.Tensor) -> tf.Tensor:
    """[k, l, in, out] -> [(k + 1) / 2, l, 2 * in, 2 * out], between pairs of rows."""
    size, width, channels, filters = w.shape
    half = (size + 1) // 2
    rows = tf.reshape(_two_offsets(w), [half, 2, width, channels, 2 * filters])
    rows = tf.transpose(rows, [0, 2, 1, 3, 4])
    return tf.reshape(rows, [half, width, 2 * channels, 2 * filters])


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
