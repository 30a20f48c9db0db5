"""Prepares images for a network that takes 32x32 pixels.

images = standardize(batch["image"])  # uint8 [B, 28, 28, 1] -> float32 [B, 32, 32, 1]
"""

from __future__ import annotations

import tensorflow as tf

from lenet_tf.errors import UsageError

IMAGE_SIZE = 32


def scale_pixels(images: tf.Tensor) -> tf.Tensor:
    """Scales pixels to [0, 1].

    Args:
      images: Images of any shape: uint8 (0 to 255), uint16 (0 to 65,535), or float,
        whose values are not changed.

    Returns:
      float32 of the same shape.

    Raises:
      UsageError: The images are of another dtype, whose range is not known.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype in (tf.uint8, tf.uint16):
        return tf.cast(images, tf.float32) / float(images.dtype.max)
    if not images.dtype.is_floating:
        raise UsageError(
            f"the images are {images.dtype.name}, of unknown range: give uint8 (0 to "
            "255) or uint16, or scale them to [0, 1] yourself, as in "
            "tf.cast(images, tf.float32) / 255"
        )
    return tf.cast(images, tf.float32)


def standardize(images: tf.Tensor) -> tf.Tensor:
    """Scales pixels to [0, 1], and pads with zeros to 32x32, the image in the centre.

    Args:
      images: Images [B, H, W, C], uint8, uint16 or float as in `scale_pixels`, with H
        and W up to 32. An odd row or column of padding goes to the bottom or right.

    Returns:
      float32 [B, 32, 32, C].

    Raises:
      UsageError: The images are larger than 32x32, or of another dtype.
    """
    images = scale_pixels(images)
    height, width = images.shape[1], images.shape[2]
    if height > IMAGE_SIZE or width > IMAGE_SIZE:
        raise UsageError(
            f"the images are {height}x{width}: at most {IMAGE_SIZE}x{IMAGE_SIZE} fits"
        )
    return _centred(_centred(images, axis=2), axis=1)


def _centred(images: tf.Tensor, axis: int) -> tf.Tensor:
    """Pads an axis to IMAGE_SIZE; on a CPU, tf.concat is faster than tf.pad."""
    missing = IMAGE_SIZE - images.shape[axis]
    if not missing:
        return images

    def zeros(width: int) -> tf.Tensor:
        shape = tf.unstack(tf.shape(images))
        shape[axis] = width
        return tf.zeros(shape, images.dtype)

    before = missing // 2
    return tf.concat([zeros(before), images, zeros(missing - before)], axis=axis)
