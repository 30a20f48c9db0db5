"""Pads the entries of examples of different lengths to one length each, at their end.

    PaddedRows(data, transform, {"tokens": 128})      # for examples read one by one
    pad_elements(dataset, {"tokens": 128})            # for a tf.data.Dataset
    ragged("tokens", [[1, 2], [3]], 128)              # for arrays in memory

An entry `tokens` of length n gets zeros, or empty strings, after its n values, and the
entry `tokens_length` has n, int32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from lenet_tf.data.buckets import length_name
from lenet_tf.data.examples import flat, of_python, to_array
from lenet_tf.errors import DataError, UsageError


class _Rows(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


_TOO_LONG = "the length of entry "
_NAMED = re.compile(rf"\[{_TOO_LONG}(.*?)\] \[(\d+)\] \[largest\] \[(\d+)\]")


def too_long(where: str, length: int, largest: int) -> DataError:
    """Returns the error of an example that no bucket holds."""
    return DataError(
        f"{where} has the length {length}, above {largest}, its largest bucket: give "
        "a larger one, or cut the example first"
    )


def explain_length(error: tf.errors.OpError) -> DataError | None:
    """Returns the error of an element of a dataset that no bucket holds, if it is."""
    found = _NAMED.search(str(error.message))
    if found is None:
        return None
    return too_long(f"entry {found[1]!r} of an example", int(found[2]), int(found[3]))


class PaddedRows:
    """Examples read one by one, with padded entries.

    Args:
      data: Examples of different lengths.
      transform: Function of one example, or None.
      longest: Length of each entry that is padded.
    """

    def __init__(
        self,
        data: _Rows,
        transform: Callable[[object], object] | None,
        longest: Mapping[str, int],
    ) -> None:
        self._data, self._transform, self._longest = data, transform, dict(longest)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> dict[str, object]:
        example = self._data[i]
        if self._transform is not None:
            example = self._transform(example)
        entries = flat(example, i)
        check_names(self._longest, entries)
        for name, size in self._longest.items():
            where = f"entry {name!r} of example {i}"
            values = to_array(entries[name], where)
            if not hasattr(entries[name], "dtype"):
                values = of_python(values, where)
            if not values.ndim:
                raise DataError(f"{where} has no length: take it out of buckets")
            length = len(values)
            if length > size:
                raise too_long(where, length, size)
            empty = b"" if values.dtype == object else 0
            shape = [size, *values.shape[1:]]
            padded = np.full(shape, empty, values.dtype)
            padded[:length] = values
            entries[name] = padded
            entries[length_name(name)] = np.int32(length)
        return entries


def pad_elements(
    dataset: tf.data.Dataset, longest: Mapping[str, int]
) -> tf.data.Dataset:
    """Pads entries of the elements of a dataset, which are dicts.

    Iterating the dataset raises InvalidArgumentError for an element that is too long;
    see `explain_length`.

    Raises:
      UsageError: The elements lack an entry, or one is not a tensor that has a length.
    """
    check_names(longest, dataset.element_spec)
    for name in longest:
        entry = dataset.element_spec[name]
        slice_of_ragged = isinstance(entry, tf.RaggedTensorSpec) and not (
            entry.ragged_rank
        )
        if not (isinstance(entry, tf.TensorSpec) or slice_of_ragged) or not (
            entry.shape.rank
        ):
            raise UsageError(
                f"entry {name!r} of the dataset is {entry}: what has buckets must be a "
                "dense tensor [length, ...] in each element"
            )

    @tf.autograph.experimental.do_not_convert
    def pad(element: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        padded = dict(element)
        for name, size in longest.items():
            values = tf.convert_to_tensor(element[name])
            length = tf.shape(values)[0]
            fits = tf.debugging.Assert(length <= size, told(name, length, size))
            with tf.control_dependencies([fits]):
                more = [[0, size - length], *[[0, 0]] * (values.shape.rank - 1)]
                values = tf.pad(values, more, constant_values=nothing(values.dtype))
            padded[name] = tf.ensure_shape(values, [size, *values.shape[1:]])
            padded[length_name(name)] = length
        return padded

    return dataset.map(pad)


def ragged(name: str, values: object, largest: int) -> tf.RaggedTensor:
    """Returns rows of different lengths as a ragged tensor [N, None, ...].

    Args:
      name: Name of the entry.
      values: Ragged tensor, or a sequence of arrays or lists [length, ...].
      largest: Largest length that is allowed.

    Raises:
      UsageError: The values are something else.
      DataError: A row is too long.
    """
    rows = values if isinstance(values, tf.RaggedTensor) else _of_rows(name, values)
    if rows.ragged_rank != 1:
        raise UsageError(
            f"entry {name!r} has the shape {rows.shape}: only its second axis may be "
            "of unknown length"
        )
    lengths = rows.row_lengths().numpy()
    if len(lengths) and lengths.max() > largest:
        i = int(lengths.argmax())
        raise too_long(f"entry {name!r} of example {i}", lengths[i], largest)
    return rows


def _of_rows(name: str, values: object) -> tf.RaggedTensor:
    """Returns a sequence of arrays or lists as a ragged tensor."""
    try:
        given = list(values)  # type: ignore[call-overload]
        rows = [np.asarray(row) for row in given]
        typed = any(hasattr(row, "dtype") for row in given)
        kinds = {
            row.dtype if typed else row.dtype.kind in "OSU" for row in rows if row.size
        }
        if len(kinds) > 1:
            raise TypeError("its rows differ in dtype: give all rows the same")
        joined = np.concatenate([row for row in rows if len(row)] or rows[:1])
        if not typed:
            joined = of_python(joined, f"entry {name!r}")
        return tf.RaggedTensor.from_row_lengths(joined, [len(row) for row in rows])
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"entry {name!r} has buckets, so it must be a ragged tensor or a sequence "
            f"of rows: {' '.join(str(error).split())}"
        ) from error


def gather_padded(values: tf.RaggedTensor, index: tf.Tensor, size: int) -> tf.Tensor:
    """Returns rows [*index.shape, size, ...] of a ragged tensor, padded."""
    rows = tf.gather(values, tf.reshape(index, [-1]))
    inner = values.shape[2:]
    dense = rows.to_tensor(nothing(values.dtype), shape=[None, size, *inner])
    shape = tf.concat([tf.shape(index), [size, *inner]], axis=0)
    return tf.ensure_shape(tf.reshape(dense, shape), [*index.shape, size, *inner])


def check_names(longest: Mapping[str, int], entries: Mapping[str, object]) -> None:
    """Raises UsageError if an entry is missing, or the name for its length is taken."""
    for name in longest:
        if name not in entries:
            raise UsageError(
                f"buckets has {name!r}, but the examples have {', '.join(entries)}"
            )
        if length_name(name) in entries:
            raise UsageError(
                f"the examples have an entry {length_name(name)!r}, where the lengths "
                f"of {name!r} go: rename it"
            )


def told(name: str, length: tf.Tensor, largest: int) -> list[object]:
    """Returns what an assertion in a graph tells `explain_length`."""
    return [f"{_TOO_LONG}{name}", length, "largest", largest]


def nothing(dtype: tf.DType) -> tf.Tensor:
    """Returns the value that padding has."""
    return tf.constant("") if dtype == tf.string else tf.zeros([], dtype)
