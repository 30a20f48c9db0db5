"""Images as a network of 32x32 pixels takes them.

images = standardize(batch["image"])  # uint8 [B, 28, 28, 1] -> float32 [B, 32, 32, 1]
"""

from __future__ import annotations

import tensorflow as tf

from lenet_tf.errors import UsageError

IMAGE_SIZE = 32


def standardize(images: tf.Tensor) -> tf.Tensor:
    """Pads images with zeros to 32x32, centred, and scales uint8 to [0, 1].

    Args:
      images: uint8 (0 to 255) or float32 (left as it is) [B, H, W, C], H and W up to
        32; smaller even differences are shared by both sides, an odd one goes to the
        lower right.

    Returns:
      float32 [B, 32, 32, C].

    Raises:
      UsageError: the images are larger.
    """
    images = tf.convert_to_tensor(images)
    height, width = images.shape[1], images.shape[2]
    if height > IMAGE_SIZE or width > IMAGE_SIZE:
        raise UsageError(
            f"the images are {height}x{width}: at most {IMAGE_SIZE}x{IMAGE_SIZE} fits"
        )
    if images.dtype == tf.uint8:
        images = tf.cast(images, tf.float32) / 255.0
    return _centred(_centred(images, axis=2), axis=1)


def _centred(images: tf.Tensor, axis: int) -> tf.Tensor:
    """Pads an axis to IMAGE_SIZE; on a CPU, joining zeros is faster than tf.pad."""
    missing = IMAGE_SIZE - images.shape[axis]
    if not missing:
        return images

    def zeros(width: int) -> tf.Tensor:
        shape = tf.unstack(tf.shape(images))
        shape[axis] = width
        return tf.zeros(shape, images.dtype)

    before = missing // 2
    return tf.concat([zeros(before), images, zeros(missing - before)], axis=axis)
