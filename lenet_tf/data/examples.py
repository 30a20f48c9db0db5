"""One example of any structure -> names and arrays, checked against the first example.

flat({"image": image, "box": {"x": 1.0, "y": 2.0}}, 7)    # image, box/x, box/y
flat((image, label), 7)                                   # 0, 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from lenet_tf.data.raw_files import one_line
from lenet_tf.errors import DataError

# What TensorFlow makes of Python's numbers.
OF_PYTHON = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}


def flat(example: object, i: int) -> dict[str, object]:
    """Returns the entries of an example by name; nested names are joined by "/".

    Args:
      example: Dict, NamedTuple or tuple, which may be nested. An entry of a tuple has
        its number as its name.
      i: Index of the example, for error messages.

    Raises:
      DataError: The example has no names, a name is not a string, or two are the same.
    """
    if not isinstance(example, Mapping | tuple):
        raise DataError(
            f"example {i} is of type {type(example).__name__}: it must be a dict or a "
            'tuple; transform=lambda x: {"x": x} makes one'
        )
    entries: dict[str, object] = {}
    for name, value in _entries(example, "", i):
        if name in entries:
            raise DataError(f"example {i} has two entries {name!r}: rename one")
        entries[name] = value
    if not entries:
        raise DataError(f"example {i} is empty: give an entry")
    return entries


def first_entry(name: str, value: object) -> np.ndarray:
    """Returns an entry of the first example; the others must be like it.

    Python's numbers, and lists of them, become int32 and float32, as in TensorFlow.

    Raises:
      DataError: The entry is no array of numbers or strings.
    """
    where = f"entry {name!r} of example 0"
    array = to_array(value, where)
    if not hasattr(value, "dtype"):
        array = check_like(
            np.empty(array.shape, OF_PYTHON.get(array.dtype, array.dtype)),
            where,
            value,
        )
    try:
        tf.as_dtype(array.dtype)
    except TypeError:
        raise DataError(
            f"{where} is {array.dtype}: it must be of numbers or strings"
        ) from None
    return array


def to_array(value: object, where: str) -> np.ndarray:
    """Converts an entry to an array; strings become an array of bytes objects.

    Raises:
      DataError: The entry is no array of numbers or strings.
    """
    try:
        if isinstance(value, str | bytes):  # NumPy would cut zeros off their ends
            return _strings(np.array(value, object))
        array = np.asarray(value)
        if array.dtype.kind in "SUO":
            return _strings(array)
    except Exception as error:  # also of a user's __array__
        raise DataError(
            f"{where} is not an array of numbers or strings: {one_line(str(error))}"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def of_python(array: np.ndarray, where: str) -> np.ndarray:
    """Returns an array of Python's numbers in the dtype that TensorFlow gives them.

    Raises:
      DataError: A whole number does not fit into int32.
    """
    converted = array.astype(OF_PYTHON.get(array.dtype, array.dtype))
    if array.dtype.kind in "iu" and (converted != array).any():
        raise DataError(
            f"{where} has {array[converted != array][0]}, which int32 cannot hold: "
            "give NumPy numbers of a larger type in all examples"
        )
    return converted


def check_like(first: np.ndarray, where: str, value: object) -> np.ndarray:
    """Converts an entry to an array, and checks that it is like the first example's.

    Args:
      first: Array of the shape and dtype that the entry must have.
      where: Subject of the error message.
      value: Entry.

    Raises:
      DataError: The entry has another shape or dtype. A Python number may be converted
        if it keeps its value, up to rounding.
    """
    array = to_array(value, where)
    if array.shape == first.shape and array.dtype == first.dtype:
        return array
    if array.shape == first.shape and not hasattr(value, "dtype"):
        with np.errstate(over="ignore"):
            converted = array.astype(first.dtype)
        exact = first.dtype.kind not in "iu" or (converted == array).all()
        if exact and np.can_cast(array.dtype, first.dtype, "same_kind"):
            return converted
        if not exact and array.dtype.kind in "iu":
            raise DataError(
                f"{where} is {one_line(str(value))}, which {first.dtype} cannot hold: "
                "give NumPy numbers of a larger type in all examples"
            )
    raise DataError(
        f"{where} is {_kind(array)}, but that of example 0 is {_kind(first)}: give all "
        "examples one shape and dtype, with transform= for instance, or name the "
        "lengths with buckets="
    )


def _entries(value: object, name: str, i: int) -> Iterator[tuple[str, object]]:
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        value = dict(zip(names, value, strict=True))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        if not isinstance(key, str):
            raise DataError(
                f"an entry of example {i} is named {key!r}: its name must be a string"
            )
        yield from _entries(inner, f"{name}/{key}" if name else key, i)


def _strings(array: np.ndarray) -> np.ndarray:
    """Converts an array of strings to bytes objects, in UTF-8."""
    for value in array.flat:
        if not isinstance(value, str | bytes):
            raise TypeError(f"it has a {type(value).__name__}")
    values = [v.encode() if isinstance(v, str) else bytes(v) for v in array.flat]
    result = np.empty(array.size, object)
    result[:] = values
    return result.reshape(array.shape)


def _kind(array: np.ndarray) -> str:
    return f"{'string' if array.dtype == object else array.dtype} {array.shape}"
