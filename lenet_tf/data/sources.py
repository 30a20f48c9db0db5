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
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT, check_entries, check_stream
from lenet_tf.errors import UsageError

Block = dict[str, tf.Tensor]
Spec = dict[str, tf.TensorSpec]
Arrays = Mapping[str, np.ndarray]
Streams = Callable[[int], tf.data.Dataset]

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

    Raises:
      UsageError: An entry is not an array of numbers or strings, lengths differ, the
        entry `weight` is not one number per example, or no weight is positive.
    """

    def __init__(self, arrays: Arrays) -> None:
        with tf.device("CPU:0"):
            self._arrays = {k: _resident(k, v) for k, v in arrays.items()}
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
        return {**block, WEIGHT: weight}

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of the arrays' names, dtypes, shapes and contents."""
        crc = spec_checksum(self.spec)
        for name in sorted(self._arrays):
            values = self._arrays[name].numpy().reshape(-1)
            if values.dtype == object:  # strings
                values = np.array(
                    [zlib.crc32(s) for s in values] + [len(s) for s in values],
                    np.int64,
                )
            crc = zlib.crc32(values.view(np.uint8), crc)
        return crc


class StreamSource:
    """A `tf.data.Dataset` for each epoch, whose elements are dicts of one example.

    Args:
      streams: Function that returns the dataset of an epoch (int, from 0).
      examples: Number of elements in each dataset, needed if its cardinality is
        unknown.
      endless: Whether epoch 0 never ends; `examples` is then the number that is called
        an epoch.

    Raises:
      UsageError: The elements cannot be batched, or their number is unknown.
    """

    def __init__(
        self, streams: Streams, examples: int | None, endless: bool = False
    ) -> None:
        self._streams, self.endless = streams, endless
        first = streams(0)
        if not isinstance(first, tf.data.Dataset):
            raise UsageError(
                f"the source returned a {type(first).__name__} for epoch 0: it must "
                "return a tf.data.Dataset"
            )
        self.spec: Spec = check_stream(first.element_spec)
        self.examples: int = (
            _epoch_of_endless(first, examples)
            if endless
            else _number_of_elements(first, examples)
        )

    def batches(
        self, epoch: int, first_step: int, batch_size: int, rows: int, as_given: bool
    ) -> tf.data.Dataset:
        """Returns a dataset of the batches of an epoch.

        Args:
          epoch: Number of the epoch, from 0.
          first_step: Number of batches to skip at the start of the epoch.
          batch_size: Number of examples in a batch; the last may have fewer.
          rows: Number of rows in every batch, those of padding included.
          as_given: Whether examples of weight 0 keep their own values.

        Returns:
          A dataset of dicts of tensors [rows, ...], `weight` among them. Iterating it
          raises FailedPreconditionError if the epoch does not have `examples` elements.
        """
        stand_in = {} if as_given else self._stand_in

        def pad(batch: Block) -> Block:
            size = tf.shape(next(iter(batch.values())))[0]
            real = tf.range(rows) < size
            index = tf.where(real, tf.range(rows), 0)
            weight = tf.cast(real, tf.float32)
            if WEIGHT in batch:
                own = tf.cast(batch[WEIGHT], tf.float32)
                weight = tf.where(real, tf.gather(own, index), 0.0)
                if not as_given:
                    batch = {
                        k: tf.where(_column(own != 0, v.shape.rank), v, stand_in[k])
                        for k, v in batch.items()
                    }
            block = {
                k: tf.ensure_shape(tf.gather(v, index), [rows, *v.shape[1:]])
                for k, v in batch.items()
            }
            return {**block, WEIGHT: weight}

        skipped = first_step * batch_size
        dataset = self._streams(epoch).skip(skipped)
        if not self.endless:
            # An error if the epoch has another length, instead of ending it there.
            left = tf.data.experimental.assert_cardinality(self.examples - skipped)
            dataset = dataset.apply(left)
        return dataset.batch(batch_size).map(pad)

    @functools.cached_property
    def _stand_in(self) -> Block:
        """The first example of positive weight, which fills rows of weight 0."""
        if WEIGHT not in self.spec:
            return {}
        positive = self._streams(0).filter(lambda e: tf.cast(e[WEIGHT], tf.float32) > 0)
        for example in positive.take(1):
            return dict(example)
        raise UsageError(ALL_WEIGHTS_0)

    @property
    def checksum(self) -> int:
        """CRC-32 of the elements' names, dtypes and shapes."""
        return spec_checksum(self.spec)


def _resident(name: str, values: np.ndarray) -> tf.Tensor:
    """Copies an array into a tensor, so that later changes of it have no effect."""
    try:
        if isinstance(values, Mapping):
            raise TypeError("it is a dict")
        return tf.constant(values)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"entry {name!r} is not an array [N, ...] of numbers or strings: "
            f"{' '.join(str(error).split())}"
        ) from error


def _number_of_elements(dataset: tf.data.Dataset, examples: int | None) -> int:
    known = int(dataset.cardinality())
    if known == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            "the dataset is endless: remove .repeat(), since every epoch reads the "
            "dataset again, or pass steps_per_epoch=N"
        )
    if examples is not None and known in (examples, tf.data.UNKNOWN_CARDINALITY):
        return examples
    if examples is not None:
        raise UsageError(f"examples is {examples}, but the dataset has {known}")
    if known == tf.data.UNKNOWN_CARDINALITY:
        raise UsageError(
            "the dataset has no known length: pass examples=N, or apply "
            "tf.data.experimental.assert_cardinality(N)"
        )
    return known


def _epoch_of_endless(dataset: tf.data.Dataset, examples: int | None) -> int:
    known = int(dataset.cardinality())
    if known not in (tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY):
        raise UsageError(
            f"steps_per_epoch was given, but the dataset ends after {known} examples: "
            "leave it out, or make the dataset endless with .repeat()"
        )
    assert examples is not None
    return examples


def _column(values: tf.Tensor, rank: int) -> tf.Tensor:
    """Reshapes [B] to [B, 1, ...] with `rank` dimensions, for broadcasting."""
    return tf.reshape(values, [-1] + [1] * (rank - 1))


def spec_checksum(spec: Spec) -> int:
    """Returns a CRC-32 of the names, dtypes and shapes of entries."""
    entries = sorted((k, s.dtype.name, s.shape.as_list()) for k, s in spec.items())
    return zlib.crc32(repr(entries).encode())
