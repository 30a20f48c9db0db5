"""What the sections of a page are made of: charts, tables, matrices, small pictures.

Section("Scores", [Table(["class", "F1"], [["0", 0.99], ["1", 0.98]])])
Section("Samples", [tiles(images, captions)])
Section("Weights", [Chart("Norms", figure(my_matplotlib_figure))])
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lenet_tf.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Text and lines of this colour get the colour of the page's text, light or dark.
INK = "#010203"


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawing in SVG.

    Attributes:
      title: Title above it.
      svg: The drawing, as `figure` makes it.
      colors: Colour of each thing that is drawn, by its name, for the legend.
      note: Text below it.
    """

    title: str
    svg: str
    colors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""
    kind: str = dataclasses.field(default="chart", init=False)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
      columns: Titles of the columns.
      rows: Values: text, or numbers, which are set flush right.
      title: Title above it.

    Raises:
      UsageError: A row has another number of values than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    kind: str = dataclasses.field(default="table", init=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise UsageError(
                    f"a row has {len(row)} values for {len(self.columns)} columns: "
                    f"{row!r}"
                )

    def flush_right(self, column: int) -> bool:
        """Whether all values of a column are numbers, or text such as 99.5%."""
        return all(_like_a_number(row[column]) for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
      names: Names of the classes.
      counts: Number of examples, integer [classes, classes], by their class and the
        class they were taken for.
    """

    names: Sequence[str]
    counts: np.ndarray
    kind: str = dataclasses.field(default="matrix", init=False)

    def shade(self, row: int, column: int) -> float:
        """Returns how strongly a cell is coloured, in [0, 1]."""
        counts = np.array(self.counts, np.float64)
        if row == column:
            return 0.75 * counts[row, row] / max(counts[row].sum(), 1.0)
        np.fill_diagonal(counts, 0)
        return math.sqrt(counts[row, column] / max(counts.max(), 1.0))


@dataclasses.dataclass(frozen=True)
class Tile:
    """A small picture: the address that shows it, and a caption."""

    source: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Small pictures beside each other.

    Attributes:
      tiles: The pictures.
      title: Title above them.
      width: Width of each on the page, in CSS pixels.
    """

    tiles: Sequence[Tile]
    title: str = ""
    width: int = 84
    kind: str = dataclasses.field(default="tiles", init=False)


Part = Chart | Table | Matrix | Tiles


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
      title: Its title.
      parts: What it shows.
      note: Text below the title.

    Raises:
      UsageError: A part is none of these.
    """

    title: str
    parts: Sequence[Part]
    note: str = ""

    def __post_init__(self) -> None:
        for part in self.parts if not isinstance(self.parts, str) else [self.parts]:
            if not isinstance(part, Part):
                raise UsageError(
                    f"section {self.title!r} has a {type(part).__name__} among its "
                    "parts: give a list of Chart, Table, Matrix and tiles(...)"
                )


def tiles(
    images: np.ndarray | Sequence[np.ndarray],
    captions: Sequence[str] = (),
    title: str = "",
    width: int = 84,
) -> Tiles:
    """Makes small pictures of images.

    Args:
      images: Images [N, H, W] or [N, H, W, C] with C of 1 or 3: uint8, or float, which
        is scaled from each image's least and largest value.
      captions: Caption of each image; none by default.
      title: Title above them.
      width: Width of each on the page, in CSS pixels.

    Raises:
      UsageError: There is another number of captions or channels.
    """
    if captions and len(captions) != len(images):
        raise UsageError(
            f"there are {len(captions)} captions for {len(images)} images: give each "
            "image one"
        )
    texts = captions or [""] * len(images)
    made = [Tile(_png(image), text) for image, text in zip(images, texts, strict=True)]
    return Tiles(made, title, width)


def figure(drawn: Figure) -> str:
    """Returns a matplotlib figure as SVG for a page.

    What is black in it gets the colour of the page's text, so that it can be read on a
    dark page too.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    drawn.patch.set_visible(False)
    for axes in drawn.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    # Names in the drawing are made of what they name, the same each time.
    salt = "lenet_tf"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(drawn).print_svg(buffer, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace(INK, "currentColor").replace("#000000", "currentColor")


def _like_a_number(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\d[\d,]*(\.\d+)?( ?%)?|–", value) is not None
    return hasattr(value, "__int__") and not isinstance(value, bool)


def _png(image: np.ndarray) -> str:
    """Returns an image as an address that holds its PNG file."""
    from PIL import Image

    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] != 3):
        raise UsageError(
            f"an image has the shape {image.shape}: it must be [H, W], or [H, W, C] "
            "with 1 or 3 channels"
        )
    if image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float64))
        span = float(np.ptp(values)) or 1.0
        image = np.round((values - values.min()) / span * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
