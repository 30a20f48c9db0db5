"""Batches of examples of different lengths, each padded to one of a few lengths.

    buckets = check_buckets({"tokens": (32, 64, 128)})
    cut_at_buckets(blocks, buckets)              # tokens [steps, rows, 32], then 64

A source pads the entry of each example to the largest length, and adds the example's
own one. Here each batch is cut down to the smallest length that holds its longest
example, which depends on nothing but that batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT
from lenet_tf.errors import UsageError

Block = dict[str, tf.Tensor]
Buckets = Mapping[str, Sequence[int]]


def length_name(entry: str) -> str:
    """Returns the name of the entry with the lengths of another entry."""
    return f"{entry}_length"


def check_buckets(buckets: Buckets | None) -> dict[str, tuple[int, ...]]:
    """Returns the lengths of each entry as a tuple.

    Raises:
      UsageError: The lengths of an entry are not whole numbers of at least 1, each
        above the one before.
    """
    checked: dict[str, tuple[int, ...]] = {}
    if buckets is not None and not isinstance(buckets, Mapping):
        raise UsageError(
            f"buckets is {buckets!r}: give the lengths of each entry that needs them, "
            "as in {'tokens': (32, 64)}"
        )
    for name, lengths in dict(buckets or {}).items():
        numbers = (lengths,) if isinstance(lengths, int) else tuple(lengths)
        whole = all(isinstance(n, int | np.integer) for n in numbers)
        if not numbers or not whole or list(numbers) != sorted({*numbers}):
            raise UsageError(
                f"buckets has {numbers} for {name!r}: give whole numbers, each above "
                "the one before, such as (32, 64, 128)"
            )
        if numbers[0] < 1 or name == WEIGHT:
            raise UsageError(
                f"buckets has {numbers} for {name!r}: give lengths of at least 1, and "
                "not for the weight, which is one number"
            )
        checked[name] = tuple(int(n) for n in numbers)
    return checked


def longest(buckets: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Returns the largest length of each entry, to which sources pad it."""
    return {name: lengths[-1] for name, lengths in buckets.items()}


def cut_at_buckets(
    blocks: Iterable[Block],
    buckets: Mapping[str, tuple[int, ...]],
    real_rows: Callable[[int, int], np.ndarray] | None = None,
) -> Iterator[Block]:
    """Yields blocks whose batches have the same lengths, and no longer than needed.

    Args:
      blocks: Blocks of batches that are padded to the largest lengths.
      buckets: Entry name -> lengths, each above the one before.
      real_rows: Function that tells which rows have a say in the lengths: from the
        number of batches before a block and in it to a bool array [steps, rows]. By
        default these are the rows of a weight above 0. Others are cut if they are
        longer.
    """
    before = 0
    for block in blocks:
        steps = len(block[WEIGHT])
        real = real_rows(before, steps) if real_rows else block[WEIGHT].numpy() > 0
        before += steps
        lengths = {name: block[length_name(name)].numpy() for name in buckets}
        sizes = [
            tuple(_bucket(buckets[k], lengths[k][i][real[i]]) for k in buckets)
            for i in range(steps)
        ]
        start = 0
        for size, run in itertools.groupby(sizes):
            stop = start + len(list(run))
            yield _cut(block, slice(start, stop), dict(zip(buckets, size, strict=True)))
            start = stop


def _bucket(lengths: Sequence[int], own: np.ndarray) -> int:
    """Returns the smallest of `lengths` that is at least the largest of `own`."""
    return lengths[int(np.searchsorted(lengths, own.max(initial=0)))]


def _cut(block: Block, steps: slice, sizes: Mapping[str, int]) -> Block:
    """Returns some batches of a block, with entries cut to given lengths."""
    with tf.device("CPU:0"):  # where blocks are
        cut = {name: values[steps] for name, values in block.items()}
        for name, size in sizes.items():
            cut[name] = cut[name][:, :, :size]
            length = length_name(name)
            cut[length] = tf.minimum(cut[length], size)
    return cut
