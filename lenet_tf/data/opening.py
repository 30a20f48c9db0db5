"""Chooses the source for the data that `Batches` is given.

    open_source({"image": images, "label": labels})      # ArraySource
    open_source(MyImages("folder"), transform=decode)    # RandomAccessSource
    open_source(tf.data.Dataset.range(9).map(example))   # StreamSource

A new kind of storage is a class like these, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

from lenet_tf.data.elements import flat_elements
from lenet_tf.data.padded_records import PaddedRecords, can_pad
from lenet_tf.data.padding import PaddedRows, pad_elements
from lenet_tf.data.random_access import (
    Columns,
    RandomAccess,
    RandomAccessSource,
    Transform,
    is_read_by_row,
)
from lenet_tf.data.record_source import RecordSource
from lenet_tf.data.records import Records
from lenet_tf.data.sources import Arrays, ArraySource
from lenet_tf.data.stream_source import Streams, StreamSource
from lenet_tf.errors import UsageError

SourceLike: TypeAlias = Arrays | RandomAccess | tf.data.Dataset | Streams


def open_source(
    data: SourceLike,
    seed: int | None = None,
    examples: int | None = None,
    transform: Transform | None = None,
    *,
    longest: Mapping[str, int] | None = None,
    endless: bool = False,
) -> ArraySource | RandomAccessSource | StreamSource:
    """Returns the source for data of any kind that `Batches` accepts.

    Args:
      data: Data, as given to `Batches`.
      seed: Seed for shuffling, or None.
      examples: Number of examples in an epoch; None takes it from the data.
      transform: Function of one example, or None.
      longest: Length to which an entry of unknown length is padded, by name.
      endless: Whether the data is a dataset that never ends.

    Raises:
      UsageError: The data is of another kind, or does not go with the other arguments.
    """
    if endless and not isinstance(data, tf.data.Dataset):
        raise UsageError(
            f"steps_per_epoch was given with a {type(data).__name__}: it is only for a "
            "tf.data.Dataset that never ends"
        )
    indexed = _open_indexed(data, transform, longest or {})
    if indexed is not None:
        if examples not in (None, indexed.examples):
            raise UsageError(
                f"examples is {examples}, but the source has {indexed.examples}"
            )
        return indexed
    if not callable(data) and not isinstance(data, tf.data.Dataset):
        raise UsageError(
            f"the source is a {type(data).__name__}: give a dict of arrays, an object "
            "with __len__ and __getitem__, a tf.data.Dataset of dicts, or a function "
            "of the epoch that returns one"
        )
    if seed is not None:
        raise UsageError(
            "seed was given with a tf.data.Dataset, which has its own order: "
            "shuffle in the dataset, or pass a function of the epoch"
        )
    if transform is not None:
        raise UsageError(
            "transform was given with a tf.data.Dataset: use dataset.map(transform)"
        )
    return StreamSource(_streams(data, longest or {}), examples, endless)


def _open_indexed(
    data: SourceLike, transform: Transform | None, longest: Mapping[str, int]
) -> ArraySource | RandomAccessSource | None:
    """Returns the source of data that has indices; None for a dataset."""
    if isinstance(data, Mapping):
        if transform is None and not is_read_by_row(data):
            return ArraySource(data, longest)
        data = Columns(data)
    if isinstance(data, tuple | tf.data.Dataset) or not isinstance(data, RandomAccess):
        return None
    if isinstance(data, Records) and transform is None and can_pad(data, longest):
        return RecordSource(PaddedRecords(data, longest) if longest else data)
    if longest:
        return RandomAccessSource(PaddedRows(data, transform, longest))
    if isinstance(data, Records) and data.fixed_size:
        return RecordSource(data, transform)
    return RandomAccessSource(data, transform)


def _streams(data: tf.data.Dataset | Streams, longest: Mapping[str, int]) -> Streams:
    """Returns the dataset of each epoch, its elements flat and padded."""

    def stream(epoch: int) -> tf.data.Dataset:
        dataset = data if isinstance(data, tf.data.Dataset) else data(epoch)
        if not isinstance(dataset, tf.data.Dataset):
            return dataset  # which StreamSource refuses
        dataset = flat_elements(dataset)
        is_dict = isinstance(dataset.element_spec, Mapping)
        return pad_elements(dataset, longest) if longest and is_dict else dataset

    return stream
