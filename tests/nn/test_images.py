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
