"""Behaviour of lenet_tf.nn.layers, against short NumPy references."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.layers import Conv2D, Dense, Subsample, glorot_uniform


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Draws normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windows_2x2(x: np.ndarray) -> np.ndarray:
    """Cuts [B, H, W, C] into [B, H/2, 2, W/2, 2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_is_the_correlation_of_each_window_with_the_kernel_plus_bias(
    size: int,
) -> None:
    conv = Conv2D(size, channels=3, filters=4, seed=(0, 1))
    conv.b.assign(random(4, seed=2))
    x = random(2, 8, 7, 3)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    expected = np.einsum("bhwcij,ijcf->bhwf", windows, conv.w.numpy()) + conv.b.numpy()
    output = conv(tf.constant(x))
    assert output.shape == (2, 8 - size + 1, 7 - size + 1, 4)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_dense_is_the_matrix_product_plus_bias() -> None:
    dense = Dense(6, 3, seed=(0, 1))
    dense.b.assign(random(3, seed=2))
    x = random(5, 6)
    expected = x @ dense.w.numpy() + dense.b.numpy()
    np.testing.assert_allclose(dense(tf.constant(x)), expected, atol=1e-6)


def test_average_subsampling_is_the_mean_of_2x2() -> None:
    x = random(2, 6, 4, 3)
    expected = windows_2x2(x).mean((2, 4))
    np.testing.assert_allclose(Subsample("average")(x), expected, atol=1e-6)


def test_average_sigmoid_subsampling_is_the_sigmoid_of_the_mean() -> None:
    x = random(2, 6, 4, 3)
    expected = 1 / (1 + np.exp(-windows_2x2(x).mean((2, 4))))
    np.testing.assert_allclose(Subsample("average_sigmoid")(x), expected, atol=1e-6)


def test_max_subsampling_is_the_largest_of_2x2() -> None:
    x = random(2, 6, 4, 3)
    np.testing.assert_array_equal(Subsample("max")(x), windows_2x2(x).max((2, 4)))


@pytest.mark.parametrize("kind", Subsample.KINDS)
def test_subsampling_leaves_an_odd_last_row_and_column_out(kind: str) -> None:
    x = random(2, 5, 7, 3)
    pool = Subsample(kind)
    np.testing.assert_array_equal(pool(x), pool(x[:, :4, :6]))


def test_subsampling_has_no_variables() -> None:
    assert Subsample("average_sigmoid").variables == ()


def test_layers_are_named_and_hold_kernel_in_hwio_and_matrix_in_in_out() -> None:
    conv = Conv2D(5, channels=6, filters=16, seed=(0, 3), name="c3")
    dense = Dense(84, 10, seed=(0, 7), name="output")
    assert [(v.name, v.shape) for v in (conv.w, conv.b, dense.w, dense.b)] == [
        ("c3/w:0", (5, 5, 6, 16)),
        ("c3/b:0", (16,)),
        ("output/w:0", (84, 10)),
        ("output/b:0", (10,)),
    ]


def test_biases_start_at_zero() -> None:
    assert not Conv2D(5, 1, 6, seed=(0, 1)).b.numpy().any()
    assert not Dense(5, 6, seed=(0, 1)).b.numpy().any()


def test_an_initializer_makes_the_kernel_or_matrix_from_shape_and_seed() -> None:
    def initializer(shape: Sequence[int], seed: tuple[int, int]) -> tf.Tensor:
        return tf.fill(shape, float(100 * seed[0] + seed[1]))

    conv = Conv2D(3, 2, 4, seed=(5, 6), initializer=initializer)
    dense = Dense(3, 2, seed=(7, 8), initializer=initializer)
    np.testing.assert_array_equal(conv.w, np.full([3, 3, 2, 4], 506))
    np.testing.assert_array_equal(dense.w, np.full([3, 2], 708))
    assert not conv.b.numpy().any() and not dense.b.numpy().any()


@pytest.mark.parametrize(
    ("shape", "fans"), [([300, 100], 400), ([5, 5, 16, 120], 25 * (16 + 120))]
)
def test_glorot_weights_fill_the_range_that_the_fans_give(
    shape: list[int], fans: int
) -> None:
    weights = glorot_uniform(shape, seed=(0, 1)).numpy()
    limit = math.sqrt(6 / fans)
    assert weights.shape == tuple(shape)
    assert weights.dtype == np.float32
    assert 0.999 * limit < np.abs(weights).max() <= limit
    # A uniform variable has mean 0 and variance limit^2 / 3; 30,000 draws tell.
    assert abs(weights.mean()) < 0.02 * limit
    assert weights.var() == pytest.approx(limit**2 / 3, rel=0.02)


def test_equal_seeds_give_equal_weights_and_others_give_others() -> None:
    first, again, other_model, other_layer = (
        Conv2D(5, 1, 6, seed=seed).w.numpy()
        for seed in [(0, 1), (0, 1), (1, 1), (0, 2)]
    )
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other_model).all()
    assert not np.isclose(first, other_layer).all()


def test_weights_do_not_depend_on_the_number_of_replicas(
    strategy: tf.distribute.Strategy,
) -> None:
    plain = Dense(6, 3, seed=(0, 1))
    with strategy.scope():
        mirrored = Dense(6, 3, seed=(0, 1))
    for copy in strategy.experimental_local_results(mirrored.w):
        np.testing.assert_array_equal(copy.numpy(), plain.w.numpy())


def test_weights_do_not_depend_on_the_global_seed() -> None:
    tf.random.set_seed(1)
    first = glorot_uniform([4, 4], seed=(0, 1)).numpy()
    tf.random.set_seed(2)
    np.testing.assert_array_equal(glorot_uniform([4, 4], seed=(0, 1)).numpy(), first)


def test_a_seed_that_is_no_pair_is_refused() -> None:
    with pytest.raises(UsageError, match=r"seed is 3: give two integers"):
        Dense(2, 2, seed=3)  # type: ignore[arg-type]
