"""Random distortions of images, each example's own, in the graph.

    distort = Distortion(shift=2, rotate=10, scale=0.1)
    images = distort(batch, images)       # float [B, H, W, C] -> the same shape

Numbers are keyed by (seed, step, example), as in `lenet_tf.stateless`, so an example is
distorted alike on any number of replicas and in a run that was resumed.
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


@dataclasses.dataclass(frozen=True)
class Distortion:
    """A random affine map, and an elastic one, with bilinear interpolation.

    Each amount is the most in either direction; the draw is uniform. Outside of the
    image is 0.

    Attributes:
      shift: pixels, in each axis.
      rotate: degrees.
      scale: share of the size, in each axis.
      shear: degrees.
      elastic: pixels that the points of a coarse grid move, in each axis; cubic
        B-splines carry the motion to the pixels between. (Elastic distortions for
        digits: Simard, Steinkraus and Platt, "Best practices for convolutional neural
        networks", ICDAR 2003. The splines: Rueckert et al., "Nonrigid registration
        using free-form deformations", 1999, equation 1.)
      xla: whether XLA compiles it, which lacks TensorFlow's projective transform:
        gathers then do the same.

    Raises:
      UsageError: an amount is negative.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    xla: bool = False

    def __post_init__(self) -> None:
        for name, amount in dataclasses.asdict(self).items():
            if not amount >= 0:
                raise UsageError(f"{name} is {amount}: it must be at least 0")

    def moves(self) -> bool:
        """Tells whether any amount is above 0."""
        amounts = self.shift, self.rotate, self.scale, self.shear, self.elastic
        return any(amounts)

    def __call__(self, batch: Mapping[str, tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        """Distorts images.

        Args:
          batch: with `position` and `seed`, as the training loop gives it.
          images: float32 [B, H, W, C].

        Returns:
          float32 [B, H, W, C].
        """
        _, height, width, _ = images.shape
        maps = self._affine(batch, height, width)  # [B, 6]
        if not self.moves():
            return images
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
        maps = tf.reshape(maps, [-1, 3])  # an x and a y row an example
        points = 2 * uniform(batch, [2 * GRID * GRID], SALT + 1) - 1
        motion = tf.reshape(self.elastic * points, [-1, GRID * GRID])
        where = tf.matmul(maps, pixels) + tf.matmul(motion, _splines(height, width))
        return _sample(images, tf.reshape(where, [-1, 2, height * width]))

    def _affine(
        self, batch: Mapping[str, tf.Tensor], height: int, width: int
    ) -> tf.Tensor:
        """Draws maps from a pixel (x, y) to where its value comes from, [B, 6]."""
        draw = tf.transpose(2 * uniform(batch, [6], SALT) - 1)
        angle, slant = (
            draw[i] * math.radians(most)
            for i, most in enumerate((self.rotate, self.shear))
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
    """Weights of the control points for each pixel, [GRID * GRID, height * width]."""

    def weights(size: int) -> np.ndarray:
        # The grid reaches one point beyond the image at either side.
        place = 1 + np.arange(size) / (size - 1) * (GRID - 3)
        away = np.abs(place[None, :] - np.arange(GRID)[:, None])
        near = 2 / 3 - away**2 + away**3 / 2
        far = np.clip(2 - away, 0, None) ** 3 / 6
        return np.where(away < 1, near, far)

    both = np.einsum("ih,jw->ijhw", weights(height), weights(width))
    return tf.constant(both.reshape(GRID * GRID, -1), tf.float32)


def _sample(images: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Reads images [B, H, W, C] at x and y [B, 2, P], H * W of them, bilinearly."""
    _, height, width, channels = images.shape
    # A border of zeros stands for all that is outside.
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
    upper = _between(tf.gather(padded, index), tf.gather(padded, index + 1), right)
    index += stride
    lower = _between(tf.gather(padded, index), tf.gather(padded, index + 1), right)
    return tf.reshape(_between(upper, lower, down), tf.shape(images))


def _between(a: tf.Tensor, b: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return a + (b - a) * share
