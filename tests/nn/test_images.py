"""Pixels of every dtype, and padding."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import scale_pixels, standardize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unsigned_pixels_are_scaled_by_the_largest_of_their_dtype(dtype: type) -> None:
    largest = np.iinfo(dtype).max
    images = np.array([0, largest // 5, largest], dtype)[:, None, None, None]
    result = standardize(images)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result[:, 15, 15, 0], [0, 0.2, 1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.float16])
def test_float_pixels_keep_their_values(dtype: tf.DType) -> None:
    images = tf.cast([[[[0.25], [-3.0]]]], dtype)
    result = scale_pixels(images)
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, [[[[0.25], [-3.0]]]])


@pytest.mark.parametrize("dtype", ["int32", "int64", "int8", "uint32", "bool"])
def test_pixels_of_unknown_range_are_refused_with_the_remedy(dtype: str) -> None:
    images = tf.zeros([2, 28, 28, 1], tf.as_dtype(dtype))
    with pytest.raises(UsageError, match=f"images are {dtype}.*tf.float32. / 255"):
        standardize(images)


def test_standardize_pads_28x28_by_2_on_each_side_and_divides_by_255() -> None:
    images = np.random.default_rng(0).integers(0, 256, [3, 28, 28, 2], np.uint8)
    output = standardize(tf.constant(images))
    expected = np.zeros([3, 32, 32, 2], np.float32)
    expected[:, 2:30, 2:30] = images.astype(np.float32) / np.float32(255)
    assert output.dtype == tf.float32
    np.testing.assert_array_equal(output, expected)


def test_standardize_maps_0_and_255_to_0_and_1() -> None:
    output = standardize(tf.constant([0, 255], tf.uint8)[:, None, None, None])
    assert set(output.numpy().ravel()) == {0.0, 1.0}


def test_standardize_puts_an_odd_difference_to_the_lower_right() -> None:
    output = standardize(tf.ones([1, 27, 30, 1])).numpy()[0, :, :, 0]
    rows, columns = np.nonzero(output)
    assert (rows.min(), rows.max()) == (2, 28)  # 2 above, 3 below
    assert (columns.min(), columns.max()) == (1, 30)
    assert output.sum() == 27 * 30


def test_standardize_leaves_float_images_of_32x32_as_they_are() -> None:
    images = np.random.default_rng(0).normal(size=[2, 32, 32, 1]).astype(np.float32)
    np.testing.assert_array_equal(standardize(tf.constant(images)), images)


@pytest.mark.parametrize("shape", [(33, 28), (28, 40)])
def test_standardize_refuses_larger_images_with_both_sizes(
    shape: tuple[int, int],
) -> None:
    with pytest.raises(UsageError, match=rf"{shape[0]}x{shape[1]}: at most 32x32"):
        standardize(tf.zeros([1, *shape, 1], tf.uint8))
