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

from lenet_tf.data.random_access import (
    Columns,
    RandomAccess,
    RandomAccessSource,
    Transform,
    is_read_by_row,
)
from lenet_tf.data.record_source import RecordSource
from lenet_tf.data.records import Records
from lenet_tf.data.sources import Arrays, ArraySource, Streams, StreamSource
from lenet_tf.errors import UsageError

SourceLike: TypeAlias = Arrays | RandomAccess | tf.data.Dataset | Streams


def open_source(
    data: SourceLike,
    seed: int | None = None,
    examples: int | None = None,
    transform: Transform | None = None,
    *,
    endless: bool = False,
) -> ArraySource | RandomAccessSource | StreamSource:
    """Returns the source for data of any kind that `Batches` accepts.

    Args:
      data: Data, as given to `Batches`.
      seed: Seed for shuffling, or None.
      examples: Number of examples in an epoch; None takes it from the data.
      transform: Function of one example, or None.
      endless: Whether the data is a dataset that never ends.

    Raises:
      UsageError: The data is of another kind, or does not go with the other arguments.
    """
    if endless and not isinstance(data, tf.data.Dataset):
        raise UsageError(
            f"steps_per_epoch was given with a {type(data).__name__}: it is only for a "
            "tf.data.Dataset that never ends"
        )
    indexed: ArraySource | RandomAccessSource | None = None
    if isinstance(data, Mapping):
        if transform is None and not is_read_by_row(data):
            indexed = ArraySource(data)
        else:
            indexed = RandomAccessSource(Columns(data), transform)
    elif isinstance(data, Records) and data.fixed_size:
        indexed = RecordSource(data, transform)
    elif isinstance(data, RandomAccess) and not isinstance(
        data, tuple | tf.data.Dataset
    ):
        indexed = RandomAccessSource(data, transform)
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
    streams = data if callable(data) else lambda epoch: data
    return StreamSource(streams, examples, endless)
