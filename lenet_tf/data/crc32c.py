"""CRC-32C of many byte strings at once, by which TFRecord files tell damage.

    crc32c([b"123456789", b""])       # array([0xE3069283, 0], uint32)
    masked(crc)                       # the form that TFRecord files store

The checksum is the Castagnoli CRC of RFC 3720, appendix B.4. It is linear over GF(2):
the contributions of the bytes, each a table entry that depends on the byte and on how
many bytes follow, are combined by exclusive or. So one gather serves all strings.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

_POLYNOMIAL = np.uint32(0x82F63B78)  # with its bits reversed
_WINDOW = 1024  # bytes; the table has 1 MiB, which fits into a core's cache
_FEWEST = 4  # bytes that the start value of the register reaches


def crc32c(strings: Sequence[bytes]) -> np.ndarray:
    """Returns the CRC-32C of each string, uint32 [N]."""
    # The register starts as 32 ones: that inverts the first four bytes. Zeros before
    # them change nothing, so strings of fewer than four bytes are counted one by one.
    short = [i for i, s in enumerate(strings) if len(s) < _FEWEST]
    lengths = np.array([len(s) for s in strings], np.int64)
    ends = np.cumsum(lengths)
    data = np.frombuffer(b"".join(strings), np.uint8).copy()
    starts = ends - lengths
    whole = starts[lengths >= _FEWEST]
    for i in range(_FEWEST):
        data[whole + i] ^= 0xFF
    crc = ~_linear(data, lengths)
    for i in short:
        crc[i] = _one_by_one(strings[i])
    return crc


def masked(crc: np.ndarray) -> np.ndarray:
    """Returns checksums in the form that TFRecord files store, uint32."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _linear(data: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the CRCs of strings for a register that starts as 0, uint32 [N].

    Args:
      data: Bytes of all strings, one after the other, uint8.
      lengths: Number of bytes in each string, int64 [N].
    """
    table = _table()
    windows = -(-lengths // _WINDOW)  # the first window of a string may be shorter
    first = lengths - np.maximum(windows - 1, 0) * _WINDOW
    sizes = np.full(int(windows.sum()), _WINDOW, np.int64)
    begins = np.cumsum(windows) - windows  # number of each string's first window
    sizes[begins[windows > 0]] = first[windows > 0]
    ends = np.cumsum(sizes)
    crc = np.zeros(len(lengths), np.uint32)
    if not len(sizes):
        return crc
    followed_by = np.repeat(ends, sizes) - 1 - np.arange(len(data))
    parts = np.bitwise_xor.reduceat(table[followed_by, data], ends - sizes)
    for i in range(int(windows.max())):
        has = windows > i
        old = crc[has]
        moved = np.zeros_like(old)
        for byte in range(_FEWEST):
            value = (old >> np.uint32(8 * byte)) & np.uint32(255)
            moved ^= table[_WINDOW - 1 - byte, value]
        crc[has] = moved ^ parts[begins[has] + i]
    return crc


def _one_by_one(string: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in string:
        crc = int(_table()[0, (crc ^ byte) & 255]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@functools.lru_cache(1)
def _table() -> np.ndarray:
    """Returns the contribution of a byte that i others follow: [i, byte], uint32."""
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = (value >> np.uint32(1)) ^ (value & np.uint32(1)) * _POLYNOMIAL
    table = np.empty([_WINDOW, 256], np.uint32)
    table[0] = value
    for i in range(1, _WINDOW):
        table[i] = value[table[i - 1] & 255] ^ (table[i - 1] >> 8)
    return table
