"""Text for the examples, and how well counts of its n-grams predict it.

    train, held_out = read_text(None, 100_000)     # uint8, of Python's own library
    ngram_bits(train, held_out, order=3)           # 3.1 bits per character

A character is a byte of UTF-8, so that any text will do.
"""

import pathlib
import sysconfig

import numpy as np

SYMBOLS = 256


def read_text(path: str | None, count: int | None) -> list[np.ndarray]:
    """Reads a text, and holds out its last tenth.

    Args:
      path: File of text; None for the sources of Python's standard library.
      count: Number of characters to read; None for all.

    Returns:
      Text to train on, and held-out text, uint8 [N] each.
    """
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    files = [pathlib.Path(path)] if path else sorted(library.glob("*.py"))
    text = b"".join(file.read_bytes() for file in files)[:count]
    return np.split(np.frombuffer(text, np.uint8), [len(text) * 9 // 10])


def ngram_bits(train: np.ndarray, held_out: np.ndarray, order: int) -> float:
    """Computes how well counts of n-grams predict a text.

    The probability of a character after n - 1 others is the share of the times that it
    followed them in the training text. The probability after only the last n - 2 of
    them is added as if it had been counted twice, so none is 0.

    Args:
      train: Text to count in, uint8 [N].
      held_out: Text to predict, uint8 [M].
      order: Number of characters that are counted together, 1 to 3.

    Returns:
      Mean of -log2 of the probabilities, in bits per character.
    """
    p = np.full([SYMBOLS], 1 / SYMBOLS, np.float32)
    for n in range(1, order + 1):
        code = _codes(train, n)
        count = np.bincount(code, minlength=SYMBOLS**n).reshape([SYMBOLS] * n)
        p = (count + 2 * p) / (count.sum(axis=-1, keepdims=True) + 2)
    return float(-np.mean(np.log2(p.flat[_codes(held_out, order)])))


def cut(text: np.ndarray, length: int) -> np.ndarray:
    """Returns pieces of a text, [N, length + 1]; neighbours share a character."""
    windows = np.lib.stride_tricks.sliding_window_view(text, length + 1)
    return windows[::length]


def _codes(text: np.ndarray, n: int) -> np.ndarray:
    """Returns the number of each n-gram of a text, as it stands in an array [256]^n."""
    windows = np.lib.stride_tricks.sliding_window_view(text, n)
    return windows @ SYMBOLS ** np.arange(n)[::-1]
