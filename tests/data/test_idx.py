from __future__ import annotations

import gzip
import pathlib
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from idx_writer import idx_bytes

from lenet_tf.data import idx
from lenet_tf.errors import DataError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)

Pack = Callable[[bytes], bytes]
either_form = pytest.mark.parametrize(
    "pack", [bytes, gzip.compress], ids=["plain", "gzip"]
)


@either_form
def test_reads_plain_and_gzip_whatever_the_name(
    tmp_path: pathlib.Path, pack: Pack
) -> None:
    for name in ("images", "images.gz"):
        (tmp_path / name).write_bytes(pack(idx_bytes(IMAGES)))
        found = idx.read(tmp_path / name, ndim=3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, IMAGES)


@either_form
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with 0x;"),
        (b"not an IDX file at all", "starts with 0x6e6f7420"),
        (struct.pack(">HBBIII", 0, 0x0D, 3, 3, 4, 5) + bytes(60), "starts with"),
        (idx_bytes(np.zeros(60)), "starts with 0x00000801; .* with 0x00000803"),
        (idx_bytes(IMAGES)[:9], "truncated in its header"),
        (idx_bytes(IMAGES)[:-1], "truncated"),
        (idx_bytes(IMAGES) + b"\0", "bytes follow the 60"),
        (struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 28), "truncated"),
    ],
)
def test_bad_content_is_one_line_naming_file_and_fault(
    tmp_path: pathlib.Path, pack: Pack, content: bytes, message: str
) -> None:
    path = tmp_path / "images"
    path.write_bytes(pack(content))
    with pytest.raises(DataError, match=message) as caught:
        idx.read(path, ndim=3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@either_form
def test_a_claim_larger_than_the_file_allocates_nothing(
    tmp_path: pathlib.Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("allocated")

    path = tmp_path / "labels"
    path.write_bytes(pack(struct.pack(">HBBI", 0, 8, 1, 2**32 - 1) + bytes(100)))
    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(DataError, match="truncated"):
        idx.read(path, ndim=1)


def test_a_gzip_bomb_is_not_decompressed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(10)) + bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(DataError, match="bytes follow the 10"):
        idx.read(path, ndim=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


@pytest.mark.parametrize("damage", ["cut", "checksum", "garbage"])
def test_damaged_gzip_is_refused(tmp_path: pathlib.Path, damage: str) -> None:
    packed = gzip.compress(idx_bytes(IMAGES))
    content = {
        "cut": packed[:-9],
        "checksum": packed[:-8] + bytes(8),
        "garbage": packed[:40] + b"\xff" * 20,
    }[damage]
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(DataError, match="expected a whole IDX file"):
        idx.read(tmp_path / "images.gz", ndim=3)


def test_missing_file_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        idx.read(tmp_path / "nothing", ndim=3)


def test_a_pair_has_a_channel_axis_and_equal_lengths(tmp_path: pathlib.Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(idx_bytes(IMAGES))
    labels.write_bytes(idx_bytes(np.array([7, 0, 2])))
    image, label = idx.read_pair(images, labels)
    assert image.shape == (3, 4, 5, 1)
    assert label.tolist() == [7, 0, 2]
    labels.write_bytes(idx_bytes(np.array([7, 0])))
    with pytest.raises(DataError, match=r"3 images but .* 2 labels"):
        idx.read_pair(images, labels)
    images.write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    labels.write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(DataError, match="no images"):
        idx.read_pair(images, labels)
