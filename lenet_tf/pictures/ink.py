"""How far each pixel of a picture is from its ground, whatever the two colours are.

ink = ink_of(picture)  # float32 [H, W] in [0, 1]: 0 is paper, 1 the strongest ink
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from lenet_tf.pictures.reading import PictureError

_MOST_SIDE = 1024  # pixels; a larger picture is scaled down before it is looked at
# Least contrast of a picture that has anything in it, of 255.
_LEAST_CONTRAST = 16.0


def ink_of(picture: np.ndarray) -> np.ndarray:
    """Returns the ink of a picture.

    The ground is a plane through the colours of the border, so light that falls from
    one side does no harm. Ink is the distance from it in RGB.

    Args:
      picture: Pixels in RGB, uint8 [H, W, 3].

    Returns:
      float32 [H', W'] in [0, 1], at most 1,024 pixels high and wide.

    Raises:
      PictureError: The picture has a single colour.
    """
    image = Image.fromarray(picture)
    image.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image, np.float32)
    distance = np.sqrt(np.mean((pixels - _ground(pixels)) ** 2, axis=-1))
    strongest = float(np.quantile(distance, 1 - 1 / max(200, distance.size // 50)))
    strongest = max(strongest, float(distance.max()) / 2)
    if strongest < _LEAST_CONTRAST:
        raise PictureError(
            "the picture is empty: a digit must stand out from its ground"
        )
    # The noise of the paper is no ink.
    noise = 3.0 * float(np.median(distance))
    noise = min(noise, strongest / 4)
    return np.clip((distance - noise) / (strongest - noise), 0, 1)


def _ground(pixels: np.ndarray) -> np.ndarray:
    """Fits a plane to the border of a picture [H, W, 3], without what lies off it."""
    height, width, _ = pixels.shape
    rows, columns = np.mgrid[:height, :width]
    edge = max(1, min(height, width) // 25)
    border = np.ones([height, width], bool)
    border[edge : height - edge, edge : width - edge] = False
    places = np.stack([np.ones(pixels.shape[:2]), rows, columns], axis=-1) / [
        1,
        height,
        width,
    ]
    x, y = places[border], pixels[border]
    kept = np.abs(y - np.median(y, axis=0)).max(axis=1) <= 64
    plane = np.zeros([3, 3])
    plane[0] = np.median(y, axis=0)
    for _ in range(3):
        if kept.sum() < len(x) // 2 or kept.sum() < 16:
            break
        plane = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
        error = np.abs(y - x @ plane).max(axis=1)
        kept = error <= max(4.0, 3.0 * float(np.median(error)))
    return np.clip(places @ plane, 0, 255).astype(np.float32)
