"""The checksum of TFRecord files."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.data.crc32c import crc32c, masked


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, appendix B.4, and the check value of the CRC catalogues
        (b"\0" * 32, 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
    ids=["zeros", "ones", "rising", "falling", "digits", "empty"],
)
def test_published_values(data: bytes, crc: int) -> None:
    assert crc32c([data]).tolist() == [crc]


def test_the_checksums_of_files_that_tensorflow_writes(tmp_path) -> None:
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 4, 5, 300, 1023, 1024, 1025, 1028, 2048, 2049, 70_000]
    records = [rng.bytes(n) for n in lengths]
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with open(path, "rb") as file:
        for record, crc in zip(records, masked(crc32c(records)), strict=True):
            header, length_crc = file.read(8), file.read(4)
            assert masked(crc32c([header])).tolist() == list(
                struct.unpack("<I", length_crc)
            )
            assert file.read(len(record)) == record
            assert struct.unpack("<I", file.read(4)) == (crc,)
