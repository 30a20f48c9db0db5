"""The IDX format, in which MNIST and its relatives are published.

A big-endian header (two zero bytes, the element type, the number of dimensions, then
one 32-bit length per dimension) followed by the elements in C order. Only files of
unsigned bytes are read. A file may be plain or gzip; its first bytes tell which.

    images, labels = read_pair("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte")
    images.shape, labels.shape    # (60000, 28, 28, 1), (60000,)

Source: section "The IDX file format" of the MNIST database's web page.
"""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import struct
import zlib
from typing import IO

import numpy as np

from lenet_tf.errors import DataError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
# The most that deflate can reach (RFC 1951: 258 bytes from two bits), so the size of a
# compressed file bounds that of its content.
_MAX_DEFLATE_RATIO = 1032
_CHUNK = 1 << 20


def read(path: str | os.PathLike[str], *, ndim: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    The length in the header is checked against the file's size before memory is
    allocated, and at most that length plus one byte is decompressed.

    Args:
      path: Path of the file, plain or gzip.
      ndim: Number of dimensions to expect: 3 for images, 1 for labels.

    Returns:
      A uint8 array of the shape in the header.

    Raises:
      DataError: The file cannot be read, is not such an IDX file, or is shorter or
        longer than its header says.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if not is_gzip:
                return _read_stream(raw, path, ndim, limit=size)
            with gzip.GzipFile(fileobj=raw) as stream:
                limit = size * _MAX_DEFLATE_RATIO
                return _read_stream(stream, path, ndim, limit)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}; expected a whole IDX file") from error


def read_pair(
    images: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of images and the file of their labels.

    Args:
      images: IDX file of three dimensions.
      labels: IDX file of one dimension, as long as `images`.

    Returns:
      Images, uint8 [N, H, W, 1], and labels, uint8 [N], with N > 0.

    Raises:
      DataError: A file is bad or has no images, or the numbers of images and labels
        differ.
    """
    image = read(images, ndim=3)[..., np.newaxis]
    label = read(labels, ndim=1)
    if len(image) != len(label):
        raise DataError(
            f"{images} has {len(image)} images but {labels} has {len(label)} labels: "
            "there must be one label for each image"
        )
    if image.size == 0:
        raise DataError(f"{images} has no images (shape {image.shape[:-1]})")
    return image, label


def _read_stream(
    stream: IO[bytes] | gzip.GzipFile, path: pathlib.Path, ndim: int, limit: int
) -> np.ndarray:
    """Reads header and elements; `limit` is the most bytes the file can hold."""
    header = stream.read(4 + 4 * ndim)
    magic = struct.pack(">HBB", 0, _UNSIGNED_BYTE, ndim)
    if header[:4] != magic:
        raise DataError(
            f"{path}: starts with 0x{header[:4].hex()}; an IDX file of unsigned bytes "
            f"in {ndim} dimension{'s'[: ndim > 1]} starts with 0x{magic.hex()}"
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: truncated in its header")
    shape = struct.unpack(f">{ndim}I", header[4:])
    expected = math.prod(shape)
    if expected > limit:
        raise DataError(
            f"{path}: truncated: shape {shape} needs {expected} bytes, more than the "
            "whole file can hold"
        )
    data = np.empty(expected, np.uint8)
    view = memoryview(data.data)
    filled = 0
    while filled < expected:
        count = stream.readinto(view[filled : filled + _CHUNK])  # type: ignore[union-attr]
        if not count:
            raise DataError(
                f"{path}: truncated: shape {shape} needs {expected} bytes after the "
                f"header, {filled} are there"
            )
        filled += count
    # Reading on also makes gzip verify its checksum.
    if stream.read(1):
        raise DataError(
            f"{path}: bytes follow the {expected} that shape {shape} accounts for"
        )
    return data.reshape(shape)
