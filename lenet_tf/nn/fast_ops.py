"""Fast forms of operations, each tested against its plain form.

    maps = fast_ops.conv2d(x, w)          # as tf.nn.conv2d, VALID, stride 1
    pooled = fast_ops.conv_pool(x, w, b, tf.tanh, "average")
    with fast_ops.plain_forms():          # the same by TensorFlow's own operations
        ...

A fast form has the same parameters and gives the same result, except that floats may be
summed in another order. Where none applies (odd sizes, other kernels, a GPU) the plain
form is used. The choice is made when the graph is traced.

They are fast because a processor multiplies vectors of 16 numbers. TensorFlow fills a
vector with the channels of one pixel, of which there are 1 and 6 in LeNet-5, so most of
it is idle. The fast forms fill it with examples of the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

_VECTOR = 16  # float32 numbers in a register of AVX-512
_PART = 64  # number of images whose feature maps fit into a core's cache

# Global, not thread-local: a strategy traces its replicas in threads of its own.
_fast = True


def fast() -> bool:
    """Returns whether fast forms are used where they apply."""
    return _fast and not tf.config.get_visible_devices("GPU")


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Uses plain forms only, in all that is traced or run within the context.

    For converters that know TensorFlow's usual operations only, such as TFLite's.
    """
    global _fast
    before, _fast = _fast, False
    try:
        yield
    finally:
        _fast = before


_Differentiable = Callable[..., tuple[tf.Tensor, Callable[..., object]]]


def _with_gradient(function: _Differentiable) -> Callable[..., tf.Tensor]:
    """Decorates a function as `tf.custom_gradient` does, but lets graphs be freed.

    Each time a graph calls a function with a custom gradient, TensorFlow registers the
    gradient for ever, and keeps the graph in memory with it: 6 MiB for each trainer. So
    graphs call a tf.function, which is traced once for all and inlined when they run.
    """
    differentiable = tf.custom_gradient(function)
    traced = tf.function(differentiable, autograph=False)

    def call(*tensors: tf.Tensor) -> tf.Tensor:
        return (differentiable if tf.executing_eagerly() else traced)(*tensors)

    return call


def conv2d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """Convolves with stride 1 and no padding.

    Fast forms: With a kernel as large as the input, it is a matrix product. With few
    input channels, the gradient by the input is computed with batch and channels
    exchanged.

    Args:
      x: float [B, H, W, in].
      w: float [k, k, in, out].

    Returns:
      float [B, H - k + 1, W - k + 1, out].
    """
    channels, filters = w.shape[2:]
    if not fast():
        return _conv2d(x, w)
    if x.shape[1:3] == w.shape[:2]:
        product = tf.matmul(_flat(x), tf.reshape(w, [-1, filters]))
        return tf.reshape(product, [-1, 1, 1, filters])
    if channels < _VECTOR:
        return _conv2d_with_swapped_gradient(x, w)
    return _conv2d(x, w)


def conv_pool(
    x: tf.Tensor,
    w: tf.Tensor,
    b: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor],
    pool: str,
) -> tf.Tensor:
    """Convolves, adds the bias, applies the activation, and pools 2x2 windows.

    Fast forms: Images of one channel become the channels of one image, and each is
    convolved by itself. A maximum is taken before bias and activation, which do not
    change the order of values, so that these are computed for a quarter of them only.

    Args:
      x: float [B, H, W, in].
      w: float [k, k, in, out].
      b: float [out].
      activation: Element-wise, non-decreasing function.
      pool: "average" or "max".

    Returns:
      float [B, (H - k + 1) / 2, (W - k + 1) / 2, out], rounded down.
    """
    if not fast():
        maps = activation(tf.nn.bias_add(_conv2d(x, w), b))
        pooling = tf.nn.avg_pool2d if pool == "average" else tf.nn.max_pool2d
        return pooling(maps, 2, 2, "VALID")
    odd = (x.shape[1] - w.shape[0]) % 2 == 0 or (x.shape[2] - w.shape[1]) % 2 == 0
    if w.shape[2] == 1 and not odd:
        size = x.shape[0] or 0
        sizes = [min(_PART, size - i) for i in range(0, size, _PART)]
        parts = tf.split(x, sizes) if size else [x]
        pooled = [_conv_pool_batch_last(p, w, b, activation, pool) for p in parts]
        return tf.concat(pooled, axis=0)
    if pool == "max":
        pooled = tf.nn.max_pool2d(conv2d(x, w), 2, 2, "VALID")
        return activation(tf.nn.bias_add(pooled, b))
    maps = activation(tf.nn.bias_add(conv2d(x, w), b))
    return tf.nn.avg_pool2d(maps, 2, 2, "VALID")


def _conv_pool_batch_last(
    x: tf.Tensor,
    w: tf.Tensor,
    b: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor],
    pool: str,
) -> tf.Tensor:
    batch, filters = tf.shape(x)[0], w.shape[3]
    maps = _conv2d_batch_last(tf.transpose(x, [3, 1, 2, 0]), w)
    bias = tf.repeat(b, batch)
    if pool == "max":
        pooled = activation(tf.nn.bias_add(_window_max(maps), bias))
    else:
        maps = activation(tf.nn.bias_add(maps, bias))
        pooled = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    pooled = tf.reshape(pooled, [*pooled.shape[1:3], filters, batch])
    return tf.transpose(pooled, [3, 0, 1, 2])


@_with_gradient
def _conv2d_batch_last(
    x: tf.Tensor, w: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """Convolves a batch of one-channel images that are the channels of one image.

    It is a depthwise convolution, and so is the gradient of its kernel.

    Args:
      x: float [1, H, W, B].
      w: float [k, l, 1, out].

    Returns:
      [1, H - k + 1, W - l + 1, out * B].
    """
    (height, width, _, filters), batch = w.shape, tf.shape(x)[3]
    x = tf.tile(x, [1, 1, 1, filters])
    kernel = tf.reshape(tf.repeat(w, batch, axis=3), [height, width, -1, 1])

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        input_gradient = tf.nn.depthwise_conv2d_backprop_input(
            tf.shape(x), kernel, upstream, [1, 1, 1, 1], "VALID"
        )
        input_gradient = tf.reshape(input_gradient, [*x.shape[:3], filters, -1])
        kernel_gradient = _depthwise(
            x, tf.reshape(upstream, [*upstream.shape[1:3], -1, 1])
        )
        kernel_gradient = tf.reshape(kernel_gradient, [height, width, 1, filters, -1])
        return tf.reduce_sum(input_gradient, 3), tf.reduce_sum(kernel_gradient, 4)

    return _depthwise(x, kernel), gradient


def _depthwise(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "VALID")


@_with_gradient
def _window_max(
    maps: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Takes the maximum of windows of 2x2: [1, H, W, C] becomes [1, H / 2, W / 2, C].

    The gradient goes to the pixel of the maximum, in a tie to the first in row order.
    """
    _, height, width, _ = maps.shape
    channels = tf.shape(maps)[3]
    rows = tf.reshape(maps, [height // 2, 2, width // 2, 2 * channels])
    left, right = rows[..., :channels], rows[..., channels:]
    both = tf.maximum(left, right)
    upper, lower = both[:, :1], both[:, 1:]

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        upstream = tf.reshape(upstream, tf.shape(upper))
        to_upper = upstream * tf.cast(upper >= lower, upstream.dtype)
        to_both = tf.concat([to_upper, upstream - to_upper], axis=1)
        to_left = to_both * tf.cast(left >= right, upstream.dtype)
        to_rows = tf.concat([to_left, to_both - to_left], axis=-1)
        return tf.reshape(to_rows, tf.shape(maps))

    pooled = tf.maximum(upper, lower)
    return tf.reshape(pooled, [1, height // 2, width // 2, channels]), gradient


def _conv2d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, w, strides=1, padding="VALID")


@_with_gradient
def _conv2d_with_swapped_gradient(
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
        # The sum over h, l, o of upstream[b, h, l, o] * w[i - h, j - l, c, o] has the
        # same form with w in the role of the gradient, for a batch of c examples, and
        # upstream in the role of the kernel, for b channels.
        swapped = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[channels, height, width, batch],
            filter=tf.transpose(upstream, [1, 2, 0, 3]),
            out_backprop=tf.transpose(w, [2, 0, 1, 3]),
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return tf.transpose(swapped, [3, 1, 2, 0]), filter_gradient

    return _conv2d(x, w), gradient


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
