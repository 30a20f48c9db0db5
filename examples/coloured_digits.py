"""Synthetic pictures for the examples: handwritten digits in colour.

    draw_digits(splits.train, 1000, seed=0)["image"]   # uint8 [1000, 32, 32, 3]
    write_digits(workdir, 1000)      # PNG files workdir/digits_1000/train/7/00000.png

The shape is that of CIFAR-10. The same seed always draws the same pictures.
"""

import pathlib

import numpy as np
from image_folder import SPLITS, write_images

import lenet_tf
from lenet_tf.data import Examples


def draw_digits(digits: Examples, count: int, seed: int) -> dict[str, np.ndarray]:
    """Gives digits a colour, and a background of coloured clouds and noise.

    Args:
      digits: Images of digits, uint8 [N, 28, 28, 1], and their labels.
      count: Number of digits to draw, the first ones.
      seed: Seed of the colours, backgrounds and noise.

    Returns:
      `image`, uint8 [count, 32, 32, 3], and `label`, int32 [count].
    """
    rng, image = np.random.default_rng(seed), digits.image[:count]
    parts = np.array_split(image, len(image) // 1000 + 1)  # to use little memory
    pictures = np.concatenate([_coloured(part, rng) for part in parts])
    return {"image": pictures, "label": digits.label[:count]}


def draw_splits(count: int) -> dict[str, dict[str, np.ndarray]]:
    """Draws digits of all splits of MNIST.

    Args:
      count: Number of digits to train on; a tenth as many are for validation, and a
        fifth for the test.

    Returns:
      Name of `SPLITS` -> what `draw_digits` returns for that split.
    """
    splits, parts = lenet_tf.load("mnist"), zip(SPLITS, (1, 10, 5), strict=True)
    return {
        name: draw_digits(getattr(splits, name), count // part, seed)
        for seed, (name, part) in enumerate(parts)
    }


def write_digits(workdir: pathlib.Path, count: int) -> pathlib.Path:
    """Writes what `draw_splits` draws to PNG files, unless they are there already.

    Returns:
      Their folder in the workdir, which has a folder for each split.
    """
    folder = workdir / f"digits_{count}"
    if not folder.exists():
        unfinished = folder.with_suffix(".part")
        for name, digits in draw_splits(count).items():
            write_images(unfinished / name, **digits)
        unfinished.rename(folder)
    return folder


def _coloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ink = np.pad(image / 255, [(0, 0), (2, 2), (2, 2), (0, 0)])
    # Four by four random colours, with linear interpolation between them.
    steps = np.linspace(0, 3, 32)
    mix = np.stack([np.interp(steps, range(4), row) for row in np.eye(4)], axis=1)
    corners = rng.uniform(0, 1, [len(ink), 4, 4, 3])
    ground = np.einsum("ip,npqc,jq->nijc", mix, corners, mix, optimize=True)
    # A colour that differs from the mean of the background in each channel.
    away = rng.uniform(0.3, 0.5, [len(ink), 1, 1, 3])
    colour = (ground.mean(axis=(1, 2), keepdims=True) + away) % 1
    picture = ink * colour + (1 - ink) * ground + rng.normal(0, 0.05, ground.shape)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
