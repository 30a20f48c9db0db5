"""Files of pictures -> pixels in RGB.

    picture = read_picture("seven.png")         # uint8 [H, W, 3]
    image = fit_picture(picture, (32, 32, 3))   # uint8 [32, 32, 3]

PNG, JPEG, WebP, GIF and what else Pillow reads. Of an animation the first picture is
taken.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lenet_tf.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pgm")
_MOST_PIXELS = 50_000_000


class PictureError(UsageError):
    """A picture that cannot be read, or has nothing in it."""


def picture_files(path: pathlib.Path | str) -> Iterator[pathlib.Path]:
    """Yields a file, or the pictures below a folder by their names.

    Raises:
      PictureError: There is no such file or folder, or the folder has no picture.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        yield path
        return
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    if not files:
        raise PictureError(
            f"{path} has no pictures: it must have files such as {', '.join(SUFFIXES)}"
        )
    yield from files


def read_picture(file: pathlib.Path | str | IO[bytes]) -> np.ndarray:
    """Reads a picture, upright, and with what is transparent filled in.

    Transparent places become white if what is drawn is dark, and black if it is light.

    Args:
      file: Path, or a file that is open for reading.

    Returns:
      Pixels in RGB, uint8 [H, W, 3].

    Raises:
      PictureError: The file cannot be read, is no picture, is cut off, or has more than
        50 million pixels.
    """
    name = getattr(file, "name", "it") if hasattr(file, "read") else str(file)
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise PictureError(
                    f"{name} has {image.width}x{image.height} pixels: at most "
                    f"{_MOST_PIXELS:,} are read, so make it smaller"
                )
            return _opaque(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture: give PNG, JPEG, WebP, GIF or the like"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PictureError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or "it is damaged"
        raise PictureError(f"{name} cannot be read: {reason}") from error


def fit_picture(picture: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Scales a picture to the size of a dataset's images.

    The whole picture is scaled in both directions, so its proportions may change.

    Args:
      picture: Pixels in RGB, uint8 [H, W, 3].
      shape: Height, width and channels (1 or 3) of the result.

    Returns:
      uint8 of that shape; with one channel, the brightness.

    Raises:
      PictureError: The number of channels is another.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise PictureError(f"channels is {channels}: pictures have 1 or 3")
    image = Image.fromarray(picture).convert("L" if channels == 1 else "RGB")
    scaled = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(scaled, np.uint8).reshape(shape)


def _opaque(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):  # which RGB would cut
        values = np.asarray(image, np.float64)
        span = np.ptp(values) or 1.0
        grey = _as_uint8((values - values.min()) / span * 255)
        return np.repeat(grey[..., None], 3, axis=-1)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"), np.uint8)
    rgba = np.asarray(image.convert("RGBA"), np.float64)
    color, alpha = rgba[..., :3], rgba[..., 3:] / 255
    drawn = (color * alpha).sum() / max(3 * alpha.sum(), 1.0)  # mean brightness
    ground = 255.0 if drawn < 128 else 0.0
    return _as_uint8(color * alpha + ground * (1 - alpha))


def _as_uint8(values: np.ndarray) -> np.ndarray:
    return np.round(values).astype(np.uint8)
