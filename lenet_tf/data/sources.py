"""Sources of examples: arrays in memory, or a `tf.data.Dataset`.

    source = ArraySource({"image": images, "label": labels})
    source.examples                          # N
    source.spec["image"]                     # TensorSpec([28, 28, 1], tf.uint8)
    source.gather(tf.constant([[3, 1]]))     # {"image": [1, 2, 28, 28, 1], ...}

There are two kinds of source. An `IndexedSource` returns examples by their indices, so
`Batches` chooses the order. A `StreamSource` is read from its start, in its own order.
`open_source` chooses one for the data that a user gives.

Every block from a source has an entry `weight`. A row of weight 0 is either padding or
an example that the user has given that weight. In both cases the row holds a copy of
an example of positive weight, so a model never computes on values that do not count.
Predictions are for every example, so they ask for the examples of weight 0 `as_given`.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from lenet_tf.data import padding
from lenet_tf.data.buckets import length_name
from lenet_tf.data.element_spec import WEIGHT, check_entries
from lenet_tf.errors import UsageError

Block = dict[str, tf.Tensor]
Spec = dict[str, tf.TensorSpec]
Arrays = Mapping[str, np.ndarray]

PADDING = -1  # stands in the place of an example's index
ALL_WEIGHTS_0 = "every example has weight 0: give at least one a weight above 0"


class Source(Protocol):
    """What all kinds of source have in common.

    Attributes:
      examples: Number of examples in an epoch.
      spec: Shape and dtype of each entry of one example, by entry name.
    """

    examples: int
    spec: Spec

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 by which a resumed run recognizes its data."""


class IndexedSource(Source, Protocol):
    """A source that reads any example by its index."""

    def gather(self, index: tf.Tensor, as_given: bool) -> Block:
        """Returns the examples with given indices; called in a tf.data graph.

        Args:
          index: Indices of examples, PADDING for padding, int32 [...].
          as_given: Whether examples of weight 0 keep their own values.

        Returns:
          Entry name -> tensor [..., *shape of the entry], `weight` among them.
        """


class ArraySource:
    """Arrays [N, ...], kept in memory.

    Args:
      arrays: Arrays of numbers or strings by entry name, all of one length N.
      longest: Length to which rows of an entry are padded, by name; such an entry may
        be a ragged tensor or a sequence of rows.

    Raises:
      UsageError: An entry is not an array of numbers or strings, lengths differ, the
        entry `weight` is not one number per example, or no weight is positive.
      DataError: A row is longer than `longest` allows.
    """

    def __init__(
        self, arrays: Arrays, longest: Mapping[str, int] | None = None
    ) -> None:
        self._longest = dict(longest or {})
        padding.check_names(self._longest, arrays)
        with tf.device("CPU:0"):
            self._ragged = {
                k: padding.ragged(k, arrays[k], size)
                for k, size in self._longest.items()
            }
            self._arrays = {
                k: _resident(k, v) for k, v in arrays.items() if k not in self._ragged
            }
            for k, rows in self._ragged.items():
                lengths = tf.cast(rows.row_lengths(), tf.int32)
                self._arrays[length_name(k)] = lengths
        lengths = {
            k: len(v) if v.shape.rank else "none" for k, v in self._arrays.items()
        }
        if len(set(lengths.values())) != 1 or "none" in lengths.values():
            raise UsageError(
                f"the arrays have lengths {lengths}: give one or more, of equal length"
            )
        self.examples: int = len(next(iter(self._arrays.values())))
        self.spec: Spec = {
            k: tf.TensorSpec(v.shape[1:], v.dtype) for k, v in self._arrays.items()
        }
        for k, rows in self._ragged.items():
            shape = [self._longest[k], *rows.shape[2:]]
            self.spec[k] = tf.TensorSpec(shape, rows.dtype)
        check_entries(self.spec)
        self._weight: tf.Tensor | None = None
        self._stand_in = 0  # index of the example that fills rows of weight 0
        if WEIGHT in self._arrays and self.examples:
            self._weight = tf.cast(self._arrays[WEIGHT], tf.float32)
            own_weights = self._weight.numpy()
            if not (own_weights >= 0).all():
                raise UsageError(
                    "the entry 'weight' has negative or NaN values: give 0 to what "
                    "does not count, and more to what does"
                )
            positive = own_weights > 0
            if not positive.any():
                raise UsageError(ALL_WEIGHTS_0)
            self._stand_in = int(positive.argmax())

    def gather(self, index: tf.Tensor, as_given: bool = False) -> Block:
        """Returns the examples with given indices; see `IndexedSource`."""
        weight = tf.cast(index != PADDING, tf.float32)
        if self._weight is not None:
            own = tf.gather(self._weight, tf.maximum(index, 0))
            weight = tf.where(index == PADDING, 0.0, own)
        kept = index != PADDING if as_given else weight != 0
        index = tf.where(kept, index, self._stand_in)
        block = {k: tf.gather(v, index) for k, v in self._arrays.items()}
        for k, rows in self._ragged.items():
            block[k] = padding.gather_padded(rows, index, self._longest[k])
        return {**block, WEIGHT: weight}

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of the arrays' names, dtypes, shapes and contents."""
        crc = spec_checksum(self.spec)
        arrays = self._arrays | {k: v.flat_values for k, v in self._ragged.items()}
        for name in sorted(arrays):
            values = arrays[name].numpy().reshape(-1)
            if values.dtype == object:  # strings
                values = np.array(
                    [zlib.crc32(s) for s in values] + [len(s) for s in values],
                    np.int64,
                )
            crc = zlib.crc32(values.view(np.uint8), crc)
        return crc


def _resident(name: str, values: np.ndarray) -> tf.Tensor:
    """Copies an array into a tensor, so that later changes of it have no effect."""
    try:
        if isinstance(values, Mapping):
            raise TypeError("it is a dict")
        if isinstance(values, tf.RaggedTensor):
            raise TypeError(f"name its lengths, as in buckets={{{name!r}: (32, 64)}}")
        return tf.constant(values)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "non-rectangular" in reason:
            reason = (
                "its rows differ in length, so name their lengths, as in "
                f"buckets={{{name!r}: (32, 64)}}"
            )
        raise UsageError(
            f"entry {name!r} is not an array [N, ...] of numbers or strings: {reason}"
        ) from error


def spec_checksum(spec: Spec) -> int:
    """Returns a CRC-32 of the names, dtypes and shapes of entries."""
    entries = sorted((k, s.dtype.name, s.shape.as_list()) for k, s in spec.items())
    return zlib.crc32(repr(entries).encode())
