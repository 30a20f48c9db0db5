"""Examples that are read one by one, from a disk for example, when they are needed.

    source = RandomAccessSource(MyImages("folder"), transform=decode)
    source.examples                          # len(MyImages("folder"))
    source.gather(tf.constant([[3, 1]]))     # reads examples 3 and 1

`MyImages` is anything with `__len__` and `__getitem__`. The examples of a block are
read and transformed in several threads, while the device trains on the block before.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import re
import weakref
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT, check_entries
from lenet_tf.data.examples import check_like, first_entry, flat
from lenet_tf.data.raw_files import one_line
from lenet_tf.data.sources import (
    ALL_WEIGHTS_0,
    PADDING,
    Arrays,
    Block,
    Spec,
    spec_checksum,
)
from lenet_tf.errors import DataError, UsageError

Transform: TypeAlias = Callable[[object], object]

_FAILURES = 16  # errors that are kept, more than there are blocks read ahead

# Reading waits for a disk more than it computes, so more threads than cores help.
_THREADS = min(32, (os.cpu_count() or 1) + 4)


@runtime_checkable
class RandomAccess(Protocol):
    """What can return any of its examples by index."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def __getitem__(self, index: int, /) -> object:
        """Returns one example; called from several threads at once."""


class Columns:
    """Arrays [N, ...] as examples: example i has row i of each array.

    Args:
      arrays: Arrays by entry name, all of one length; they are not copied.

    Raises:
      UsageError: There are no arrays, or their lengths differ.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = dict(arrays)
        lengths = {k: len(v) if np.ndim(v) else "none" for k, v in arrays.items()}
        if len(set(lengths.values())) != 1 or "none" in lengths.values():
            raise UsageError(
                f"the arrays have lengths {lengths}: give one or more, of equal length"
            )

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: int) -> dict[str, object]:
        return {name: values[index] for name, values in self._arrays.items()}


class RandomAccessSource:
    """An `IndexedSource` of anything with `__len__` and `__getitem__`.

    When it is made, the first example is read, and then others until one has a positive
    weight; all others are read when a batch needs them.

    Args:
      data: Examples, each a dict or a tuple of arrays, numbers or strings, which may be
        nested.
      transform: Function from one example, as `data` returns it, to the example to use,
        of NumPy or TensorFlow operations; None to use it as it is.

    Raises:
      DataError: An example cannot be read, or cannot be batched.
      UsageError: There are no examples, or none of positive weight.
    """

    def __init__(self, data: RandomAccess, transform: Transform | None = None) -> None:
        self._data, self._transform = data, transform
        self.examples: int = len(data)
        if self.examples < 1:
            raise UsageError("the source has no examples: give at least one")
        first = {k: first_entry(k, v) for k, v in self._read(0).items()}
        self.spec: Spec = {
            k: tf.TensorSpec(v.shape, tf.string if v.dtype == object else v.dtype)
            for k, v in first.items()
        }
        check_entries(self.spec)
        self._like = first
        # The first example of positive weight, which fills rows of weight 0.
        self._stand_in_index, self._stand_in = self._first_of_positive_weight()
        # What went wrong in the last blocks, which may be read ahead, by number.
        self._failures: dict[int, Exception] = {}
        self._numbers = itertools.count(1)
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS, "lenet_tf_read")

    def gather(self, index: tf.Tensor, as_given: bool = False) -> Block:
        """Returns the examples with given indices; see `IndexedSource`."""
        # TensorFlow keeps the function for ever: it must not keep the source.
        source = weakref.ref(self)

        def read(index: np.ndarray) -> list[np.ndarray]:
            this = source()
            assert this is not None
            return this._read_all(index, as_given)

        spec = {**self.spec, WEIGHT: tf.TensorSpec([], tf.float32)}
        columns = tf.numpy_function(read, [index], [s.dtype for s in spec.values()])
        return {
            name: tf.ensure_shape(column, [*index.shape, *entry.shape])
            for (name, entry), column in zip(spec.items(), columns, strict=True)
        }

    def check(self, block: Block) -> None:
        """Raises the error of an example that could not be read for a block.

        TensorFlow would print a page for an error that is raised while it reads, so the
        weights of such a block are a negative number, which tells the error.
        """
        first = float(block[WEIGHT][0, 0])
        if first < 0:
            failure = self._failures[int(-first)]
            raise failure from failure.__cause__

    def _failed(self, failure: Exception) -> float:
        """Keeps an error for `check`; returns the weight that tells it."""
        number = next(self._numbers)
        self._failures[number] = failure
        self._failures.pop(number - _FAILURES, None)
        return -number

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of the examples' names, dtypes and shapes."""
        return spec_checksum(self.spec)

    def _read_all(self, index: np.ndarray, as_given: bool) -> list[np.ndarray]:
        """Reads examples in parallel into arrays [*index.shape, ...], `weight` too."""
        order = index.reshape(-1)
        columns = {
            k: np.empty([order.size, *v.shape], v.dtype) for k, v in self._like.items()
        }
        weight = columns[WEIGHT] = np.zeros(order.size, np.float32)

        def fill(rows: range) -> None:
            with tf.device("CPU:0"):  # what is read here waits in memory
                for row in rows:
                    example = self._stand_in
                    if order[row] != PADDING:
                        own = self._example(int(order[row]))
                        weight[row] = own.get(WEIGHT, 1)
                        example = own if as_given or weight[row] else example
                    for name, value in example.items():
                        if name != WEIGHT:
                            columns[name][row] = value[()]  # bytes, not an array

        size = -(-order.size // (4 * _THREADS))
        starts = range(0, order.size, max(1, size))
        parts = [range(i, min(i + size, order.size)) for i in starts]
        try:
            list(self._pool.map(fill, parts))
        except (DataError, RuntimeError) as error:  # of an example; of Python's end
            for name, value in self._stand_in.items():
                columns[name][...] = value[()]
            weight[:] = self._failed(error)
        names = {**self.spec, WEIGHT: weight}  # in the order of `gather`
        return [columns[k].reshape(index.shape + columns[k].shape[1:]) for k in names]

    def _example(self, i: int) -> dict[str, np.ndarray]:
        """Reads example i, and checks it against the first."""
        entries = self._read(i)
        if entries.keys() != self._like.keys():
            raise DataError(
                f"example {i} has the entries {', '.join(entries) or 'none'}, but "
                f"example 0 has {', '.join(self._like)}: give all examples the same"
            )
        example = {
            k: check_like(self._like[k], f"entry {k!r} of example {i}", entries[k])
            for k in self._like
        }
        if WEIGHT in example and not example[WEIGHT] >= 0:
            raise DataError(
                f"the entry 'weight' of example {i} is {example[WEIGHT]}: it must be 0 "
                "for what does not count, and more for what does"
            )
        return example

    def _read(self, i: int) -> dict[str, object]:
        try:
            example = self._data[i]
        except DataError:  # which tells already what is wrong
            raise
        except Exception as error:  # whatever the user's code raises
            raise DataError(f"example {i} cannot be read: {_line(error)}") from error
        if self._transform is not None:
            try:
                example = self._transform(example)
            except Exception as error:
                raise DataError(
                    f"transform fails for example {i}: {_line(error)}"
                ) from error
        return flat(example, i)

    def _first_of_positive_weight(self) -> tuple[int, dict[str, np.ndarray]]:
        for i in range(self.examples):
            example = self._example(i)
            if example.get(WEIGHT, 1) > 0:
                return i, example
        raise UsageError(ALL_WEIGHTS_0)


def is_read_by_row(arrays: Arrays) -> bool:
    """Whether a dict of arrays has a memory-mapped one, which must not be copied."""
    return any(isinstance(values, np.memmap) for values in arrays.values())


def _line(error: Exception) -> str:
    text = re.sub(r"\{\{.*?\}\} ?", "", str(error))  # names of TensorFlow's own
    return one_line(f"{type(error).__name__}: {text}")
