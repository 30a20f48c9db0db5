"""Fast forms of operations against their plain forms, forward and gradient."""

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.nn import fast_ops

RNG = np.random.default_rng(0)


def normal(*shape: int) -> tf.Tensor:
    """Draws eighths, whose products add up exactly: the same ties at any precision."""
    return tf.constant(np.round(RNG.normal(size=shape) * 8) / 8, tf.float32)


def value_and_gradients(
    function: Callable[..., tf.Tensor], arguments: list[tf.Tensor]
) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
        # Weights of its own for each entry, so that none can hide behind another.
        weights = tf.random.stateless_normal(value.shape, [1, 2])
        total = tf.reduce_sum(value * tf.cast(weights, value.dtype))
    return [value, *tape.gradient(total, arguments)]


def assert_same_as_plain(
    function: Callable[..., tf.Tensor], arguments: list[tf.Tensor]
) -> None:
    with fast_ops.plain_forms():
        plain = value_and_gradients(
            function, [tf.cast(argument, tf.float64) for argument in arguments]
        )
    for a, b in zip(value_and_gradients(function, arguments), plain, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("height", "width", "size", "channels", "filters"),
    [
        (14, 14, 5, 6, 16),
        (12, 8, 5, 6, 16),
        (14, 14, 3, 2, 5),
        (10, 10, 7, 3, 4),
        (13, 14, 5, 6, 16),
        (15, 15, 5, 6, 16),
        (14, 14, 4, 6, 16),
        (5, 5, 5, 16, 120),
        (6, 6, 6, 2, 3),
        (7, 7, 1, 2, 3),
        (8, 8, 1, 2, 3),
    ],
)
@pytest.mark.parametrize("batch", [1, 7])
def test_a_convolution_is_that_of_tensorflow(
    height: int, width: int, size: int, channels: int, filters: int, batch: int
) -> None:
    arguments = [
        normal(batch, height, width, channels),
        normal(size, size, channels, filters),
    ]
    assert_same_as_plain(fast_ops.conv2d, arguments)
    np.testing.assert_allclose(
        fast_ops.conv2d(*arguments),
        tf.nn.conv2d(*arguments, 1, "VALID"),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("activation", [tf.tanh, tf.nn.relu, tf.nn.leaky_relu])
@pytest.mark.parametrize(
    ("size", "kernel", "channels"),
    [(32, 5, 1), (32, 5, 3), (32, 3, 1), (31, 5, 1), (9, 2, 1), (14, 5, 6)],
)
@pytest.mark.parametrize("batch", [1, 3, 64, 130])
def test_convolving_and_pooling_is_that_of_tensorflow(
    pool: str,
    activation: Callable[[tf.Tensor], tf.Tensor],
    size: int,
    kernel: int,
    channels: int,
    batch: int,
) -> None:
    arguments = [
        normal(batch, size, size, channels),
        normal(kernel, kernel, channels, 6),
        normal(6),
    ]
    assert_same_as_plain(
        lambda x, w, b: fast_ops.conv_pool(x, w, b, activation, pool), arguments
    )


def test_ties_in_a_window_pass_the_gradient_as_max_pool_does() -> None:
    """A blank background makes all four values of a window equal."""
    x = normal(2, 32, 32, 1).numpy()
    x[:, :20] = 0
    arguments = [tf.constant(x), normal(5, 5, 1, 6), normal(6)]
    assert_same_as_plain(
        lambda x, w, b: fast_ops.conv_pool(x, w, b, tf.tanh, "max"), arguments
    )


@pytest.mark.parametrize("subsampling", ["average_sigmoid", "max"])
def test_a_graph_that_is_no_longer_used_is_freed(subsampling: str) -> None:
    def traced() -> weakref.ref:
        model = lenet_tf.LeNet5(subsampling=subsampling)

        @tf.function
        def gradients(images: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(images))
            return tape.gradient(loss, model.trainable_variables)

        images = tf.TensorSpec([8, 32, 32, 1])
        return weakref.ref(gradients.get_concrete_function(images).graph)

    # The first ones trace what all of them share.
    graphs = [traced() for _ in range(3)]
    gc.collect()
    assert [graph() for graph in graphs] == [None, None, None]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("subsampling", ["average_sigmoid", "average", "max"])
@pytest.mark.parametrize("kernel", ["5x5", "two_3x3"])
def test_the_network_trains_to_the_same_weights_with_plain_forms(
    digits: dict[str, np.ndarray], activation: str, subsampling: str, kernel: str
) -> None:
    def weights() -> list[np.ndarray]:
        model = lenet_tf.LeNet5(
            activation=activation, subsampling=subsampling, kernel=kernel
        )
        trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.05, 0.9))
        trainer.fit(lenet_tf.Batches(digits, 32), epochs=2)
        return [v.numpy() for v in model.trainable_variables]

    fast = weights()
    with fast_ops.plain_forms():
        plain = weights()
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
