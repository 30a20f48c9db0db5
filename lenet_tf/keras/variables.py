"""The `tf.Variable`s that Keras's variables hold, and their names in checkpoints.

A Keras variable holds a `tf.Variable` as `value`, and a trainer sees only the latter.
This module finds the Keras variable again, whose name and constraint an optimizer of
Keras needs.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence

import keras
import tensorflow as tf

# id of a tf.Variable -> the Keras variable that holds it.
_HOLDERS: weakref.WeakValueDictionary[int, keras.Variable] = (
    weakref.WeakValueDictionary()
)


class _Holder(keras.Variable):
    """Keras variable that holds, without a copy, a `tf.Variable` made elsewhere."""

    def _initialize(self, value: tf.Variable) -> None:
        self._value = value


def remember(variables: Sequence[keras.Variable]) -> None:
    """Lets `keras_variable` find these variables by the `tf.Variable`s they hold."""
    for variable in variables:
        _HOLDERS[id(variable.value)] = variable


def keras_variable(variable: tf.Variable) -> keras.Variable:
    """Returns the Keras variable that holds a `tf.Variable`; makes one if need be."""
    known = _HOLDERS.get(id(variable))
    if known is not None:
        return known
    name = variable.name.split(":")[0].replace("/", "_")
    return _Holder(variable, dtype=variable.dtype.name, name=name)


def checkpoint_keys(variables: Sequence[keras.Variable]) -> list[str]:
    """Returns a name for each variable that is the same in every process.

    Keras counts layers over the whole process: `dense`, `dense_1`, `dense_2` ... Here
    they are counted within each model, in the order of its variables. So the kernel of
    its second `Dense` is `dense_1:kernel`, whatever was built before.
    """
    keys: list[str] = []
    numbers: dict[tuple[str, str], dict[str, int]] = {}
    for variable in variables:
        *layers, name = variable.path.split("/")
        path = ""
        for layer in layers:
            kind = re.sub(r"_\d+$", "", layer)
            places = numbers.setdefault((path, kind), {})
            place = places.setdefault(layer, len(places))
            path += f"{kind}_{place}:" if place else f"{kind}:"
        key, copies = path + name, 1
        while key in keys:
            copies += 1
            key = f"{path}{name}_{copies}"
        keys.append(key)
    return keys
