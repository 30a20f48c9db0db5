"""Random distortions of images in the graph, drawn for each example by itself.

    distort = Distortion(shift=2, rotate=10, scale=0.1)
    images = distort(batch, images)       # float32 [B, H, W, C] -> the same shape

Random numbers depend on (seed, step, example), as in `lenet_tf.nn.random`, so an
example is distorted in the same way on any number of replicas and in a run that was
resumed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.random import uniform

SALT = 7_001
GRID = 5  # control points a side, about a fifth of an image apart

# Beyond these an image is blank or a smear.
LARGEST_AMOUNTS = {
    "shift": 1000.0,
    "rotate": 180.0,
    "scale": 4.0,
    "shear": 60.0,
    "elastic": 1000.0,
}


@dataclasses.dataclass(frozen=True)
class Distortion:
    """A random affine map and a random elastic one, with bilinear interpolation.

    Each amount is the largest in either direction; draws are uniform between the two,
    for `scale` in the logarithm. Pixels from outside of the image are 0.

    Elastic distortions for digits: Simard, Steinkraus and Platt, "Best practices for
    convolutional neural networks", ICDAR 2003. Here the points of a coarse grid move,
    and cubic B-splines carry the motion to the pixels between them: Rueckert et al.,
    "Nonrigid registration using free-form deformations", 1999, equation 1.

    Attributes:
      shift: Shift in each axis, in pixels; at most half the image's shorter side.
      rotate: Rotation in degrees, at most 180.
      scale: Enlargement or reduction in each axis, at most 4; 0.1 is up to 1.1 times
        the size, or down to 1 / 1.1.
      shear: Shear in degrees, at most 60.
      elastic: Motion of the grid points in each axis, in pixels; at most half of the
        image's shorter side.
      xla: Whether XLA compiles the distortion. XLA lacks TensorFlow's projective
        transform, so tf.gather is used in its place.

    Raises:
      UsageError: An amount is out of its range.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    xla: bool = False

    def __post_init__(self) -> None:
        for name, largest in LARGEST_AMOUNTS.items():
            amount = getattr(self, name)
            if not 0 <= amount <= largest:
                raise UsageError(f"{name} is {amount}: it must be from 0 to {largest}")

    def is_identity(self) -> bool:
        """Returns whether all amounts are 0, so that images stay as they are."""
        return not any(getattr(self, name) for name in LARGEST_AMOUNTS)

    def __call__(self, batch: Mapping[str, tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        """Distorts images.

        Args:
          batch: Batch with `position` and `seed`, as the trainer gives it.
          images: Images, float32 [B, H, W, C].

        Returns:
          float32 [B, H, W, C].

        Raises:
          UsageError: `shift` or `elastic` is above half of the image's shorter side.
        """
        if self.is_identity():
            return images
        _, height, width, _ = images.shape
        for name in ("shift", "elastic"):
            if getattr(self, name) > min(height, width) / 2:
                raise UsageError(
                    f"{name} is {getattr(self, name)}: for images of {height}x{width} "
                    f"it must be at most {min(height, width) / 2}, half of them"
                )
        maps = self._affine(batch, height, width)  # [B, 6]
        if not self.elastic and not self.xla:
            return tf.raw_ops.ImageProjectiveTransformV3(
                images=images,
                transforms=tf.pad(maps, [[0, 0], [0, 2]]),
                output_shape=[height, width],
                fill_value=0.0,
                interpolation="BILINEAR",
                fill_mode="CONSTANT",
            )
        rows, columns = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
        pixels = tf.constant(np.stack([columns, rows, np.ones_like(rows)]))
        maps = tf.reshape(maps, [-1, 3])  # two rows an example, for x and for y
        points = 2 * uniform(batch, [2 * GRID * GRID], salt=SALT + 1) - 1
        motion = tf.reshape(self.elastic * points, [-1, GRID * GRID])
        where = tf.matmul(maps, pixels) + tf.matmul(motion, _splines(height, width))
        return _sample(images, tf.reshape(where, [-1, 2, height * width]))

    def _affine(
        self, batch: Mapping[str, tf.Tensor], height: int, width: int
    ) -> tf.Tensor:
        """Draws affine maps from a pixel (x, y) to where its value is from, [B, 6]."""
        draw = tf.transpose(2 * uniform(batch, [6], salt=SALT) - 1)
        angle, slant = (
            draw[i] * math.radians(largest)
            for i, largest in enumerate((self.rotate, self.shear))
        )
        x_scale, y_scale = (tf.exp(draw[i] * math.log1p(self.scale)) for i in (2, 3))
        cos, sin, tan = tf.cos(angle), tf.sin(angle), tf.tan(slant)
        # Rotation times shear times scale, about the centre of the image.
        a, b = cos * x_scale, (cos * tan - sin) * y_scale
        c, d = sin * x_scale, (sin * tan + cos) * y_scale
        x, y = (width - 1) / 2, (height - 1) / 2
        x_shift, y_shift = self.shift * draw[4], self.shift * draw[5]
        rows = [a, b, x - a * x - b * y + x_shift, c, d, y - c * x - d * y + y_shift]
        return tf.stack(rows, axis=1)


def _splines(height: int, width: int) -> tf.Tensor:
    """Returns each grid point's weight at each pixel, [GRID * GRID, height * width]."""

    def weights(size: int) -> np.ndarray:
        # The first and the last point lie outside of the image.
        place = 1 + np.arange(size) / (size - 1) * (GRID - 3)
        away = np.abs(place[None, :] - np.arange(GRID)[:, None])
        near = 2 / 3 - away**2 + away**3 / 2
        far = np.clip(2 - away, 0, None) ** 3 / 6
        return np.where(away < 1, near, far)

    both = np.einsum("ih,jw->ijhw", weights(height), weights(width))
    return tf.constant(both.reshape(GRID * GRID, -1), tf.float32)


def _sample(images: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Interpolates images [B, H, W, C] at the places (x, y) of [B, 2, H * W]."""
    _, height, width, channels = images.shape
    # Places outside of the image are moved to its border of zeros.
    padded = tf.reshape(
        tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]]), [-1, channels]
    )
    limits = tf.constant([width, height], tf.float32)[:, None]
    where = tf.clip_by_value(where, -1.0, limits)
    corner = tf.floor(where)
    share = where - corner
    right, down = share[:, 0, :, None], share[:, 1, :, None]
    column, row = tf.unstack(tf.cast(corner, tf.int32) + 1, axis=1)
    stride = width + 3
    first = tf.range(tf.shape(images)[0])[:, None] * (stride * (height + 3))
    index = first + row * stride + column
    upper = _interpolated(tf.gather(padded, index), tf.gather(padded, index + 1), right)
    index += stride
    lower = _interpolated(tf.gather(padded, index), tf.gather(padded, index + 1), right)
    return tf.reshape(_interpolated(upper, lower, down), tf.shape(images))


def _interpolated(a: tf.Tensor, b: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return a + (b - a) * share
