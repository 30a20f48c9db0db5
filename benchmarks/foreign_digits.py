"""Accuracy of a run's network on digits that are not MNIST's own.

    python benchmarks/foreign_digits.py --workdir=runs/best --sheet=foreign.png

Three sets of pictures: ten fonts; strokes as of a hand, in several colours and widths;
and the 1,797 digits of 8x8 pixels that scikit-learn has (of the UCI repository, written
by 43 people), enlarged to 160x160. `--sheet` is a picture of what the network sees of
the first two, with its wrong answers in red. A fourth figure is the share of rows of
five MNIST test digits whose five answers are all right.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from lenet_tf.cli import program
from lenet_tf.experiment import load_network
from lenet_tf.experiment.network import Network
from lenet_tf.pictures import find_digit, find_digits

_WORKDIR = flags.DEFINE_string("workdir", "runs/mnist", "Directory of the run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Its checkpoint.")
_SHEET = flags.DEFINE_string("sheet", None, "PNG file to write.")

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBolIta",
    "cmr10",
    "cmss10",
    "cmtt10",
)
# Points of each digit's strokes, in a box of 1x1.
STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [[(0.5, 0), (0.15, 0.2), (0.1, 0.6), (0.35, 1), (0.7, 0.9), (0.85, 0.5),
         (0.75, 0.1), (0.5, 0)]],
    1: [[(0.3, 0.25), (0.55, 0), (0.5, 1)]],
    2: [[(0.15, 0.25), (0.35, 0), (0.75, 0.1), (0.75, 0.4), (0.1, 1), (0.9, 0.95)]],
    3: [[(0.15, 0.1), (0.6, 0), (0.8, 0.2), (0.65, 0.42), (0.4, 0.48), (0.75, 0.6),
         (0.8, 0.85), (0.5, 1), (0.1, 0.9)]],
    4: [[(0.45, 0), (0.1, 0.6), (0.9, 0.58)], [(0.7, 0.3), (0.65, 1)]],
    5: [[(0.25, 0.02), (0.2, 0.45), (0.6, 0.42), (0.85, 0.65), (0.65, 0.95),
         (0.15, 0.95)], [(0.25, 0.02), (0.8, 0)]],
    6: [[(0.7, 0), (0.3, 0.3), (0.15, 0.75), (0.4, 1), (0.75, 0.85), (0.7, 0.6),
         (0.4, 0.55), (0.18, 0.75)]],
    7: [[(0.1, 0.03), (0.85, 0), (0.55, 0.5), (0.4, 1)]],
    8: [[(0.55, 0.48), (0.25, 0.25), (0.5, 0), (0.75, 0.2), (0.5, 0.5), (0.2, 0.78),
         (0.5, 1), (0.8, 0.75), (0.55, 0.48)]],
    9: [[(0.75, 0.3), (0.45, 0.45), (0.2, 0.25), (0.5, 0), (0.78, 0.2), (0.7, 0.6),
         (0.6, 1)]],
}  # fmt: skip
COLORS = [
    ("white", "black"),
    ("black", "white"),
    ("#fff8dc", "#1f3a93"),
    ("#12372a", "#e8e8c8"),
    ("#d9d9d9", "#b22222"),
]

Picture = np.ndarray


def of_fonts() -> tuple[list[Picture], list[int]]:
    """Returns 100 pictures of printed digits, RGB [H, W, 3], and their classes."""
    folder = pathlib.Path(get_data_path(), "fonts", "ttf")
    pictures, labels = [], []
    for i, name in enumerate(FONTS):
        font = ImageFont.truetype(folder / f"{name}.ttf", 60 + 20 * i)
        ground, ink = COLORS[i % len(COLORS)]
        for digit in range(10):
            image = Image.new("RGB", (300 + 10 * digit, 360), ground)
            ImageDraw.Draw(image).text((60, 40), str(digit), ink, font)
            pictures.append(np.asarray(image))
            labels.append(digit)
    return pictures, labels


def of_strokes(seed: int = 0) -> tuple[list[Picture], list[int]]:
    """Returns 100 pictures of digits drawn with a pen, and their classes."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    for i in range(10):
        ground, ink = COLORS[i % len(COLORS)]
        for digit, strokes in STROKES.items():
            width, height = rng.uniform(90, 170), rng.uniform(150, 230)
            slant = rng.uniform(-0.25, 0.25)
            left, top = rng.uniform(60, 160, 2)
            pen = round(rng.uniform(4, 24))
            image = Image.new("RGB", (420, 420), ground)
            draw = ImageDraw.Draw(image)
            for stroke in strokes:
                points = np.array(stroke) + rng.normal(0, 0.03, [len(stroke), 2])
                x = left + width * points[:, 0] - slant * height * (points[:, 1] - 0.5)
                line = _smooth(np.stack([x, top + height * points[:, 1]], axis=1))
                for a, b in line:
                    draw.ellipse(
                        (a - pen / 2, b - pen / 2, a + pen / 2, b + pen / 2), ink
                    )
            pictures.append(np.asarray(image))
            labels.append(digit)
    return pictures, labels


def of_scikit_learn() -> tuple[list[Picture], list[int]]:
    """Returns 1,797 pictures of 160x160 pixels, and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = []
    for pixels in digits.images:  # 8x8, 0 to 16
        grey = Image.fromarray(np.uint8(np.minimum(pixels * 16, 255)))
        framed = Image.new("L", (12, 12))
        framed.paste(grey, (2, 2))
        large = framed.resize((240, 240), Image.Resampling.BICUBIC).convert("RGB")
        pictures.append(np.asarray(large))
    return pictures, [int(label) for label in digits.target]


def rows_of_five(
    images: np.ndarray, labels: np.ndarray, count: int, seed: int = 0
) -> tuple[list[Picture], list[list[int]]]:
    """Returns pictures of five MNIST digits in a row, and their classes."""
    rng = np.random.default_rng(seed)
    pictures, rows = [], []
    for _ in range(count):
        chosen = rng.choice(len(images), 5, replace=False)
        row = Image.new("L", (5 * 26 + 20, 48))
        for place, i in enumerate(chosen):
            digit = Image.fromarray(images[i, 4:24, 4:24, 0])
            at = (8 + 26 * place + int(rng.integers(3)), 8 + int(rng.integers(8)))
            row.paste(digit, at)
        large = row.resize((row.width * 6, row.height * 6), Image.Resampling.BICUBIC)
        pictures.append(255 - np.asarray(large.convert("RGB")))
        rows.append([int(labels[i]) for i in chosen])
    return pictures, rows


def _smooth(points: np.ndarray) -> np.ndarray:
    """Returns a smooth line through points [N, 2], by Catmull-Rom splines."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        t = np.linspace(0, 1, 60)[:, None]
        parts.append(
            0.5
            * (
                2 * b
                + (c - a) * t
                + (2 * a - 5 * b + 4 * c - d) * t**2
                + (3 * b - a - 3 * c + d) * t**3
            )
        )
    return np.concatenate(parts)


def _measure(
    network: Network, name: str, pictures: Sequence[Picture], labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([find_digit(picture).image for picture in pictures])
    answers = network.probabilities(images).argmax(axis=1)
    right = answers == labels
    print(f"{name}: {right.sum():,} of {len(right):,}, {right.mean():.1%}")
    return images, right


def _write_sheet(images: np.ndarray, right: np.ndarray, path: str) -> None:
    tiles = np.repeat(images, 3, axis=-1)
    tiles[~right, ..., 1:] //= 4
    lines = [np.concatenate(tiles[i : i + 20], 1) for i in range(0, len(tiles), 20)]
    sheet = Image.fromarray(np.concatenate(lines))
    sheet.resize((sheet.width * 2, sheet.height * 2)).save(path)


def main() -> None:
    """Prints the accuracies."""
    network = load_network(_WORKDIR.value, _CHECKPOINT.value)
    test = network.splits.test
    right = network.probabilities(test.image).argmax(axis=1) == test.label
    print(f"MNIST's test split: {right.mean():.2%}")
    tall = test.image[:2000].repeat(8, axis=1).repeat(8, axis=2)
    again = [255 - np.repeat(image, 3, axis=-1) for image in tall]
    _measure(network, "its first 2,000, as pictures", again, list(test.label[:2000]))
    fonts, marks = _measure(network, "fonts", *of_fonts())
    strokes, marks2 = _measure(network, "strokes", *of_strokes())
    _measure(network, "scikit-learn", *of_scikit_learn())
    if _SHEET.value:
        both = np.concatenate([fonts, strokes]), np.concatenate([marks, marks2])
        _write_sheet(*both, _SHEET.value)
    whole = 0
    pictures, rows = rows_of_five(test.image, test.label, 200)
    for picture, row in zip(pictures, rows, strict=True):
        digits = np.stack([digit.image for digit in find_digits(picture)])
        whole += network.probabilities(digits).argmax(axis=1).tolist() == row
    print(f"rows of five: {whole} of {len(rows)}")


if __name__ == "__main__":
    program.run(main, __doc__)
