"""The table of a model's layers and parameters.

    print(summary(LeNet5(), [32, 32, 1]))

The layers are listed in the order in which the model calls them, which is found out by
calling it once on zeros.
"""

from __future__ import annotations

import contextlib
import math
import types
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

Row = tuple[str, str, str]
Report = Callable[[tf.Module, str, tf.Tensor], None]


def summary(model: tf.Module, input_shape: Sequence[int]) -> str:
    """Tabulates a model as Keras's `model.summary()` does.

    Args:
      model: Callable `tf.Module`. Its layers are the callable modules among its
        attributes, and in lists and dicts among them.
      input_shape: Shape of one example, without the batch axis, as in [32, 32, 1].

    Returns:
      A table with the name, output shape and number of parameters of each layer, and
      the totals below it.
    """
    rows: list[Row] = []
    counted: set[int] = set()

    def add_row(layer: tf.Module, kind: str, output: tf.Tensor) -> None:
        new = [v for v in layer.variables if id(v) not in counted]
        counted.update(id(v) for v in new)
        shape = (None, *output.shape[1:])
        count = sum(math.prod(v.shape) for v in new)
        rows.append((f"{layer.name} ({kind})", str(shape), f"{count:,}"))

    attributes = tf.nest.flatten(list(vars(model).values()))
    layers = [v for v in attributes if isinstance(v, tf.Module) and callable(v)]
    with contextlib.ExitStack() as stack:
        for layer in {id(layer): layer for layer in layers}.values():
            stack.enter_context(_reporting(layer, add_row))
        model(tf.zeros([1, *input_shape]))
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    total = sum(math.prod(v.shape) for v in model.variables)
    return "\n".join(
        [
            f"Model: {model.name}",
            *_table([("Layer (type)", "Output shape", "Param #"), *rows]),
            f"Total params: {total:,}",
            f"Trainable params: {trainable:,}",
            f"Non-trainable params: {total - trainable:,}",
        ]
    )


@contextlib.contextmanager
def _reporting(layer: tf.Module, report: Report) -> Iterator[None]:
    """Calls `report` with a layer, its class's name and its output at each call.

    Python looks `__call__` up in the class, so within the context this layer has a
    subclass of its own; other instances of its class are left alone.
    """
    kind = type(layer)

    def call(self: tf.Module, *args: object, **kwargs: object) -> tf.Tensor:
        output = kind.__call__(self, *args, **kwargs)
        report(self, kind.__name__, output)
        return output

    # Not by layer.__class__ = ..., which tf.Module would track as an attribute.
    subclass = types.new_class(
        kind.__name__, (kind,), exec_body=lambda body: body.update(__call__=call)
    )
    object.__setattr__(layer, "__class__", subclass)
    try:
        yield
    finally:
        object.__setattr__(layer, "__class__", kind)


def _table(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return [rule, lines[0], rule, *lines[1:], rule]
