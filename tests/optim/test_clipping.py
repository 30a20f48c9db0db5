"""Clipping of a gradient as one vector."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.optim import clip_by_norm


def clipped(gradient: np.ndarray, clip_norm: float, compiled: bool) -> np.ndarray:
    function = tf.function(clip_by_norm) if compiled else clip_by_norm
    return function(tf.constant(gradient), clip_norm).numpy()


compiled_or_not = pytest.mark.parametrize("compiled", [False, True])


@compiled_or_not
def test_a_long_gradient_is_scaled_to_the_norm_and_a_short_one_left(
    compiled: bool,
) -> None:
    gradient = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    norm = np.linalg.norm(gradient)
    np.testing.assert_allclose(
        clipped(gradient, 1.0, compiled), gradient / norm, rtol=1e-5
    )
    np.testing.assert_array_equal(clipped(gradient, 1000.0, compiled), gradient)


@compiled_or_not
@pytest.mark.parametrize("size", [1e20, 3e38])
def test_a_finite_gradient_whose_squares_overflow_is_clipped_too(
    size: float, compiled: bool
) -> None:
    direction = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    gradient = direction * np.float32(size)
    result = clipped(gradient, 0.5, compiled)
    expected = 0.5 * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@compiled_or_not
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_left_as_it_is(
    bad: float, compiled: bool
) -> None:
    gradient = np.float32([3.0, bad, 4.0])
    np.testing.assert_array_equal(clipped(gradient, 1.0, compiled), gradient)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_the_dtype_stays(dtype: str) -> None:
    gradient = tf.cast([300.0, 400.0], dtype)  # whose squares overflow float16
    result = clip_by_norm(gradient, 5.0)
    assert result.dtype == dtype
    np.testing.assert_allclose(tf.cast(result, tf.float64), [3, 4], rtol=0.01)


@pytest.mark.parametrize(("size", "count"), [(10.0, 200_000), (1e-4, 2_000)])
def test_half_precision_is_clipped_though_its_squares_overflow_or_vanish(
    size: float, count: int
) -> None:
    gradient = tf.fill([count], tf.constant(size, tf.float16))
    clipped = tf.cast(clip_by_norm(gradient, 1e-3), tf.float64)
    assert float(tf.norm(clipped)) == pytest.approx(1e-3, rel=0.05)
