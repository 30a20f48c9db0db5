"""Synthetic pictures for the examples: shapes to segment.

    draw_shapes(100, seed=0)["image"]      # float32 [100, 48, 48, 1]

The same seed always draws the same pictures.
"""

import pathlib

import matplotlib.image
import numpy as np

SHAPES = ("background", "disc", "square", "triangle")
SIZE = 48
COLOURS = np.array(  # of the shapes in a picture of labels
    [[0.1, 0.1, 0.1], [0.9, 0.4, 0.2], [0.2, 0.6, 0.8], [0.9, 0.8, 0.3]]
)


def draw_shapes(count: int, seed: int) -> dict[str, np.ndarray]:
    """Draws three shapes on noise, each with its place, size and brightness.

    A shape may hide another one, and some are hardly brighter than the noise.

    Args:
      count: Number of pictures, N.
      seed: Seed of the places, sizes, brightness and noise.

    Returns:
      `image`, float32 [N, 48, 48, 1], and `label`, int32 [N, 48, 48], the index in
      `SHAPES` of what each pixel shows.
    """
    rng = np.random.default_rng(seed)
    label = np.zeros([count, SIZE, SIZE], np.int32)
    light = np.zeros([count, SIZE, SIZE], np.float32)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for picture in range(count):
        for kind in rng.permutation([1, 2, 3]):
            (y, x), radius = rng.uniform(8, SIZE - 8, 2), rng.uniform(5, 10)
            down, right = rows - y, np.abs(columns - x)
            inside = {
                1: down**2 + right**2 < radius**2,
                2: np.maximum(np.abs(down), right) < 0.85 * radius,
                3: (down < 0.7 * radius) & (right < 0.55 * (down + 1.3 * radius)),
            }[int(kind)]
            label[picture][inside] = kind
            light[picture][inside] = rng.uniform(0.3, 1)
    noise = rng.normal(0, 0.3, light.shape).astype(np.float32)
    return {"image": (light + noise)[..., None], "label": label}


def save_grid(path: pathlib.Path, *rows: np.ndarray) -> None:
    """Saves rows of pictures as one PNG, twice as wide and high.

    Args:
      path: File to write.
      rows: Each a float array [N, H, W, 1] of shapes on noise, an integer array
        [N, H, W] of labels, or a uint8 array [N, H, W, 3] of colours.
    """
    lines = []
    for row in rows:
        if row.ndim == 3:
            row = COLOURS[row]
        elif row.dtype == np.uint8:
            row = row / 255
        else:
            row = np.repeat(np.clip(row / 2 + 0.25, 0, 1), 3, axis=-1)
        lines.append(np.hstack(list(row)))
    grid = np.vstack(lines).repeat(2, axis=0).repeat(2, axis=1)
    matplotlib.image.imsave(path, grid)
