"""Finds digits in a picture, and makes images of them as MNIST's were made.

    digit = find_digit(read_picture("seven.png"))
    digit.image                                     # uint8 [28, 28, 1]

MNIST's digits were scaled to fit 20x20 pixels with their proportions kept, and placed
in 28x28 by their centre of mass; see LeCun, Bottou, Bengio and Haffner,
"Gradient-based learning applied to document recognition", Proc. IEEE 1998, III.A.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image
from scipy import ndimage

from lenet_tf.pictures.ink import ink_of
from lenet_tf.pictures.reading import PictureError

_SIZE, _BOX = 28, 20
_CENTRE = 14.0  # index of the pixel where the centres of MNIST's digits lie
_EVEN = np.ones([3, 3], int)  # pixels that touch at a corner belong together
# Widths of a stroke as a share of the longer side of the digit. MNIST has 0.1 to 0.2;
# a thinner one would be grey at 20x20, so it is thickened.
_THIN, _USUAL = 0.07, 0.11


@dataclasses.dataclass(frozen=True)
class Digit:
    """A digit that was found in a picture.

    Attributes:
      image: As MNIST's: uint8 [28, 28, 1], light on black.
      box: Left, top, right and bottom of the digit as shares of the picture's width and
        height, in [0, 1].
    """

    image: np.ndarray
    box: tuple[float, float, float, float]


def find_digit(picture: np.ndarray) -> Digit:
    """Takes all that is drawn in a picture for one digit.

    Args:
      picture: Pixels in RGB, uint8 [H, W, 3], of any colours.

    Raises:
      PictureError: The picture is empty.
    """
    ink = ink_of(picture)
    parts = _parts(ink)
    mask = np.isin(parts.labels, parts.kept)
    return _digit(ink, mask)


def find_digits(picture: np.ndarray) -> list[Digit]:
    """Finds the digits of a picture, which must not touch each other.

    Parts above each other, such as the bar of a 5 that was drawn on its own, make one
    digit.

    Args:
      picture: Pixels in RGB, uint8 [H, W, 3], of any colours.

    Returns:
      The digits, line by line and from left to right.

    Raises:
      PictureError: The picture is empty.
    """
    ink = ink_of(picture)
    parts = _parts(ink)
    masks = [np.isin(parts.labels, group) for group in _grouped(parts)]
    return [_digit(ink, mask) for mask in masks]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Connected parts of a picture: labels [H, W] from 1, boxes, and those to keep."""

    labels: np.ndarray
    boxes: list[tuple[slice, slice]]
    kept: list[int]


def _parts(ink: np.ndarray) -> _Parts:
    labels, count = ndimage.label(ink > _threshold(ink), _EVEN)
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    # Specks: much smaller than the largest part.
    kept = [i + 1 for i in range(count) if areas[i] >= 0.03 * areas.max()]
    if not kept:
        raise PictureError(
            "the picture is empty: a digit must stand out from its ground"
        )
    return _Parts(labels, boxes, kept)


def _threshold(ink: np.ndarray) -> float:
    """Otsu's threshold between paper and ink, from 0.15 to 0.5.

    It makes the variance between the two classes the largest (N. Otsu, "A threshold
    selection method from gray-level histograms", IEEE Trans. SMC 1979).
    """
    counts, edges = np.histogram(ink, bins=64, range=(0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = sums / below - (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * difference**2)
    return float(np.clip(edges[1 + between.argmax()], 0.15, 0.5))


@dataclasses.dataclass
class _Group:
    """Parts of one digit, and the box around them in pixels."""

    parts: list[int]
    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def above_or_below(self, other: _Group, tallest: int) -> bool:
        """Whether two groups make one digit."""
        common = min(self.right, other.right) - max(self.left, other.left)
        narrower = min(self.right - self.left, other.right - other.left)
        gap = max(self.top, other.top) - min(self.bottom, other.bottom)
        return common > 0.5 * narrower and gap < 0.25 * tallest

    def join(self, other: _Group) -> None:
        self.parts += other.parts
        self.left, self.top = min(self.left, other.left), min(self.top, other.top)
        self.right = max(self.right, other.right)
        self.bottom = max(self.bottom, other.bottom)


def _grouped(parts: _Parts) -> list[list[int]]:
    """Joins parts that lie above each other, and orders the groups as one reads."""
    groups: list[_Group] = []
    for i in parts.kept:
        rows, columns = parts.boxes[i - 1]
        box = (columns.start, rows.start, columns.stop, rows.stop)
        groups.append(_Group([i], *box))
    tallest = max(group.height for group in groups)
    joined: list[_Group] = []
    for group in sorted(groups, key=lambda group: group.left):
        for other in joined:
            if group.above_or_below(other, tallest):
                other.join(group)
                break
        else:
            joined.append(group)
    # What is still much lower than the rest, such as a point, is no digit.
    tall = [group for group in joined if group.height >= 0.3 * tallest]
    lines: list[list[_Group]] = []
    for group in sorted(tall, key=lambda group: group.top):
        middle = (group.top + group.bottom) / 2
        for line in lines:
            if min(g.top for g in line) < middle < max(g.bottom for g in line):
                line.append(group)
                break
        else:
            lines.append([group])
    return [g.parts for line in lines for g in sorted(line, key=lambda g: g.left)]


def _digit(ink: np.ndarray, mask: np.ndarray) -> Digit:
    """Makes the image of the ink where `mask` is, and a little around it."""
    height, width = ink.shape
    near = ndimage.binary_dilation(mask, _EVEN, iterations=2)
    drawn = np.where(near, ink, 0)
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    box = (
        columns.start / width,
        rows.start / height,
        columns.stop / width,
        rows.stop / height,
    )
    drawn = _thickened(drawn[rows, columns])
    scale = _BOX / max(drawn.shape)
    size = [max(1, round(side * scale)) for side in drawn.shape]
    picture = Image.fromarray(drawn.astype(np.float32), "F")
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    small = np.clip(np.asarray(picture.resize((size[1], size[0]), method)), 0, 1)
    small = small / max(float(small.max()), 1e-6)
    return Digit(_centred(small), box)


def _thickened(drawn: np.ndarray) -> np.ndarray:
    """Widens strokes [H, W] that are too thin for 20x20 pixels."""
    mask = np.pad(drawn > 0.5, 1)
    if not mask.any():
        return drawn
    # In the middle of a stroke the distance to its edge is half of its width.
    depth = ndimage.distance_transform_edt(mask)
    middle = (depth == ndimage.maximum_filter(depth, 3)) & mask
    stroke = 2 * float(np.median(depth[middle])) - 1
    side = max(drawn.shape)
    if stroke >= _THIN * side:
        return drawn
    extra = round((_USUAL * side - stroke) / 2)
    if extra < 1:
        return drawn
    y, x = np.mgrid[-extra : extra + 1, -extra : extra + 1]
    disc = y**2 + x**2 <= extra**2
    return ndimage.grey_dilation(np.pad(drawn, extra), footprint=disc)


def _centred(small: np.ndarray) -> np.ndarray:
    """Places [h, w] in [0, 1], up to 20x20, by its centre of mass."""
    places: list[slice] = []
    for side, centre in zip(small.shape, ndimage.center_of_mass(small), strict=True):
        start = int(np.clip(round(_CENTRE - centre), 0, _SIZE - side))
        places.append(slice(start, start + side))
    image = np.zeros([_SIZE, _SIZE, 1], np.uint8)
    image[places[0], places[1], 0] = np.round(255 * small)
    return image
