"""The table of a model's layers and parameters.

    print(summary(LeNet5(), [32, 32, 1]))

The layers are the model's own modules in the order in which a call of the model calls
them, which is found by calling it once on zeros.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from lenet_tf.nn import fast_ops

Row = tuple[str, str, str]


def summary(model: Any, input_shape: Sequence[int]) -> str:
    """Tabulates a model as Keras's `model.summary()` does.

    Args:
      model: a callable `tf.Module`; its layers are the callable modules that are its
        attributes, or in lists and dicts that are.
      input_shape: of one example, without the batch axis, as in [32, 32, 1].

    Returns:
      Lines of layer, output shape and parameters; and the total below.
    """
    rows: list[Row] = []
    counted: set[int] = set()

    def record(layer: tf.Module, output: tf.Tensor) -> None:
        new = [v for v in layer.variables if id(v) not in counted]
        counted.update(id(v) for v in new)
        shape = (None, *output.shape[1:])
        count = sum(math.prod(v.shape) for v in new)
        rows.append(
            (f"{layer.name} ({type(layer).__name__})", str(shape), f"{count:,}")
        )

    attributes = tf.nest.flatten(list(vars(model).values()))
    layers = [v for v in attributes if isinstance(v, tf.Module) and callable(v)]
    # In plain forms every layer is called by itself.
    with fast_ops.plain_forms(), _calls_reported(layers, record):
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
def _calls_reported(
    layers: Sequence[tf.Module], report: Callable[[tf.Module, tf.Tensor], None]
) -> Iterator[None]:
    """Reports each call of a layer while the context lasts.

    Python looks `__call__` up on the type, so the types are wrapped, and restored.
    """
    ids = {id(layer) for layer in layers}
    kinds = {type(layer): type(layer).__call__ for layer in layers}
    own = {kind for kind in kinds if "__call__" in vars(kind)}

    def wrapped(kind: type, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: tf.Module, *args: Any, **kwargs: Any) -> Any:
            output = original(self, *args, **kwargs)
            if id(self) in ids and type(self) is kind:  # not a call of super()
                report(self, output)
            return output

        return call

    try:
        for kind, original in kinds.items():
            setattr(kind, "__call__", wrapped(kind, original))  # noqa: B010
        yield
    finally:
        for kind, original in kinds.items():
            if kind in own:
                setattr(kind, "__call__", original)  # noqa: B010
            else:
                delattr(kind, "__call__")


def _table(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return [rule, lines[0], rule, *lines[1:], rule]
