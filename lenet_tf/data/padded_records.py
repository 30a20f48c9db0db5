"""Records whose ragged features are padded as they are parsed, all by one operation.

    padded = PaddedRecords(records, {"tokens": 128})
    padded.parse(serialized)         # {"tokens": [N, 128], "tokens_length": [N]}

`PaddedRows` gives the same examples of the same records, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.data.buckets import length_name
from lenet_tf.data.padding import PaddedRows, nothing, told
from lenet_tf.data.records import Example, Records


def can_pad(records: Records, longest: Mapping[str, int]) -> bool:
    """Whether these are the ragged features of records that are not decoded."""
    return records.decode is None and records.ragged == longest.keys()


class PaddedRecords(Records):
    """Records with entries that are padded to one length.

    Args:
      records: Records whose ragged features are those in `longest`, without `decode`.
      longest: Length to which each ragged feature is padded.
    """

    def __init__(self, records: Records, longest: Mapping[str, int]) -> None:
        self.__dict__.update(records.__dict__)
        self._one_by_one = PaddedRows(records, None, longest)
        self._longest = dict(longest)

    def __getitem__(self, index: int) -> Example:
        """Returns one example, padded; see `Records`."""
        return self._one_by_one[index]

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of records [N], padded; see `Records`."""
        parsed = super().parse(serialized)
        for name, size in self._longest.items():
            rows = parsed[name]
            lengths = tf.cast(rows.row_lengths(), tf.int32)
            most = tf.reduce_max(lengths)
            with tf.control_dependencies(
                [tf.debugging.Assert(most <= size, told(name, most, size))]
            ):
                shape = [None, size, *rows.shape[2:]]
                parsed[name] = rows.to_tensor(nothing(rows.dtype), shape=shape)
            parsed[length_name(name)] = lengths
        return parsed
