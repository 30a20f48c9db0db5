"""Batches from TFRecord files: read by index, parsed and decoded in the graph.

    source = RecordSource(Records("digits-*.tfrecord", features, decode))
    source.gather(tf.constant([[3, 1]]))     # {"image": [1, 2, 28, 28, 1], ...}

`RandomAccessSource` gives the same examples of the same `Records`, by Python and one
after the other. Here one operation parses all records of a block, and TensorFlow's
threads decode them, so decoding keeps up with a small network.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT
from lenet_tf.data.examples import flat
from lenet_tf.data.random_access import RandomAccessSource, Transform
from lenet_tf.data.raw_files import one_line
from lenet_tf.data.records import Records
from lenet_tf.data.sources import PADDING, Block
from lenet_tf.errors import DataError

# Examples that one call of a function decodes: a call for each would cost more than to
# decode a small image.
_AT_ONCE = 32
_CALLS = 4  # in parallel


class RecordSource(RandomAccessSource):
    """An `IndexedSource` of `Records`.

    Args:
      records: Records, with how to parse and decode them.
      transform: Function from a decoded example to the example to use, of TensorFlow
        operations; None to use it as it is.

    Raises:
      DataError: The first record cannot be read, parsed, decoded or batched.
      UsageError: There are no records, or none of positive weight.
    """

    def __init__(self, records: Records, transform: Transform | None = None) -> None:
        super().__init__(records, transform)
        self._records = records
        # Entries that decoding leaves as they are, and their names before it.
        self._unchanged: dict[str, str] = {}
        self._decode_one = self._traced() if records.decode or transform else None
        # Fills a block that cannot be read, when its own file may be gone.
        self._stand_in_record = records.serialized([self._stand_in_index])
        # The block of an error and those read ahead of it.
        self._last_read = collections.deque[np.ndarray](maxlen=4)

    def gather(self, index: tf.Tensor, as_given: bool = False) -> Block:
        """Returns the examples with given indices; see `IndexedSource`."""
        source = weakref.ref(self)  # TensorFlow keeps the function for ever

        def read(index: np.ndarray) -> tuple[np.ndarray, np.float32]:
            this = source()
            assert this is not None
            return this._read_records(index)

        order = tf.reshape(index, [-1])
        padding = order == PADDING
        order = tf.where(padding, self._stand_in_index, order)
        records, failure = tf.numpy_function(read, [order], [tf.string, tf.float32])
        records = tf.ensure_shape(records, [None])
        failure = tf.ensure_shape(failure, [])
        columns = {
            name: values[: tf.size(order)]
            for name, values in self._decode(self._records.parse(records)).items()
        }
        weight = tf.where(padding, 0.0, 1.0)
        if WEIGHT in columns:
            own = tf.cast(columns[WEIGHT], tf.float32)
            negative = tf.debugging.Assert(tf.reduce_all(own >= 0), ["weight"])
            with tf.control_dependencies([negative]):
                weight = tf.where(padding, 0.0, own)
            if not as_given:
                for name, value in self._stand_in.items():
                    kept = tf.reshape(weight != 0, [-1] + [1] * value.ndim)
                    columns[name] = tf.where(kept, columns[name], value[()])
        columns[WEIGHT] = tf.where(failure < 0, failure, weight)
        return {name: _like(index, values) for name, values in columns.items()}

    def explain(self) -> DataError | None:
        """Returns the error of a record that TensorFlow could not decode, if any."""
        for index in self._last_read:
            for i in index:
                try:
                    self._example(int(i))
                except DataError as found:
                    return found
        return None

    def _read_records(self, index: np.ndarray) -> tuple[np.ndarray, np.float32]:
        """Reads records [N], and repeats the last up to a multiple of 32.

        Returns:
          The records, and 0, or the weight that tells an error; see `check`.
        """
        self._last_read.append(index)
        failure = 0.0
        try:
            records = self._records.serialized(index)
        except DataError as error:
            failure = self._failed(error)
            records = self._stand_in_record.repeat(len(index))
        padded = np.pad(records, [0, -len(records) % _AT_ONCE], mode="edge")
        return padded, np.float32(failure)

    def _decode(self, parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the examples of parsed records [N, ...], N a multiple of 32."""
        decode_one = self._decode_one
        if decode_one is None or len(self._unchanged) == len(self.spec):
            return {k: parsed[self._unchanged.get(k, k)] for k in self.spec}

        @tf.autograph.experimental.do_not_convert
        def decode_some(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            rows = {name: tf.unstack(values) for name, values in parsed.items()}
            examples = [
                decode_one({name: rows[name][i] for name in rows})
                for i in range(_AT_ONCE)
            ]
            return {
                k: tf.ensure_shape(
                    tf.stack([e[k] for e in examples]), [None, *self.spec[k].shape]
                )
                for k in examples[0]
            }

        groups = {
            k: tf.reshape(v, [-1, _AT_ONCE, *v.shape[1:]]) for k, v in parsed.items()
        }
        options = tf.data.Options()
        options.autotune.enabled = False  # as in `batches`
        count = tf.shape(next(iter(groups.values())), tf.int64)[0]
        decoded = (
            tf.data.Dataset.from_tensor_slices(groups)
            .map(decode_some, num_parallel_calls=_CALLS)
            .batch(count)
            .with_options(options)
            .get_single_element()
        )
        columns = {k: tf.reshape(v, [-1, *v.shape[2:]]) for k, v in decoded.items()}
        return columns | {k: parsed[name] for k, name in self._unchanged.items()}

    def _traced(self) -> Callable[[Block], Block]:
        """Returns a graph from one parsed record to its example."""
        decode, transform = self._records.decode, self._transform

        def decode_one(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            example: object = parsed if decode is None else decode(parsed)
            if transform is not None:
                example = transform(example)
            entries = flat(example, 0)
            names = {id(value): name for name, value in parsed.items()}
            self._unchanged = {
                k: names[id(entries[k])] for k in self.spec if id(entries[k]) in names
            }
            return {
                k: tf.convert_to_tensor(entries[k], s.dtype)
                for k, s in self.spec.items()
                if k not in self._unchanged
            }

        parsed = self._records.parse(tf.constant(self._records.serialized([0])))
        spec = {k: tf.TensorSpec(v.shape[1:], v.dtype) for k, v in parsed.items()}
        try:
            return tf.function(decode_one).get_concrete_function(spec)
        except Exception as error:  # whatever the user's code raises
            raise DataError(
                "decode or transform cannot be made into a graph, so use TensorFlow "
                f"operations in it: {one_line(str(error))}"
            ) from error


def _like(index: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Reshapes [N, ...] to [*index.shape, ...]."""
    shape = tf.concat([tf.shape(index), values.shape[1:]], 0)
    return tf.ensure_shape(tf.reshape(values, shape), [*index.shape, *values.shape[1:]])
