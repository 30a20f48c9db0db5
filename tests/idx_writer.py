"""Writes small IDX files for the tests."""

from __future__ import annotations

import gzip
import pathlib
import struct

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """Returns a uint8 array as the content of an IDX file."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx_dir(
    folder: pathlib.Path, train: int = 40, test: int = 12, gz: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes four files of random 28x28 digits; returns {split: (images, labels)}."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = generator.integers(0, 10, count, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{kind}-ubyte{'.gz' if gz else ''}"
            data = idx_bytes(array)
            path.write_bytes(gzip.compress(data) if gz else data)
        arrays[split] = images[..., np.newaxis], labels
    return arrays
