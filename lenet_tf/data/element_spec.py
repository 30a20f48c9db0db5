"""Checks that a dataset's elements can be batched, before any is read.

    spec = check_stream(dataset.element_spec)

Each entry must be a dense tensor whose shape is the same in all examples.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError

WEIGHT = "weight"  # entry with the weight of an example; 0 for padding


def check_stream(spec: object) -> dict[str, tf.TensorSpec]:
    """Returns a dataset's `element_spec` as a dict of specs of static shape.

    Raises:
      UsageError: The elements are not dicts, are empty, have an entry that is not a
        dense tensor of static shape, or look like batches.
    """
    if not isinstance(spec, Mapping):
        raise UsageError(
            f"the dataset's elements are {spec}: map them to dicts, "
            'as in dataset.map(lambda x, y: {"image": x, "label": y})'
        )
    if not spec:
        raise UsageError("the dataset's elements are empty dicts: give an entry")
    for name, entry in spec.items():
        if type(entry) is not tf.TensorSpec:
            raise UsageError(
                f"entry {name!r} of the dataset is a {type(entry).__name__}: map it to "
                "a dense tensor, as with tf.sparse.to_dense or to_tensor(shape=...)"
            )
    if all(e.shape.rank and e.shape[0] is None for e in spec.values()):
        shapes = ", ".join(f"{k}: {_shape(e)}" for k, e in spec.items())
        raise UsageError(
            f"the dataset's elements look like batches ({shapes}): give single "
            "examples, as dataset.unbatch() does; if they are that, name their "
            "lengths, as in buckets={'tokens': (32, 64)}"
        )
    for name, entry in spec.items():
        if not entry.shape.is_fully_defined():
            raise UsageError(
                f"entry {name!r} of the dataset has the shape {_shape(entry)}, which "
                f"may vary: name its lengths, as in buckets={{{name!r}: (32, 64)}}, or "
                "map it to one shape, as with tf.image.resize or tf.ensure_shape"
            )
    check_entries(spec)
    return dict(spec)


def check_entries(spec: Mapping[str, tf.TensorSpec]) -> None:
    """Checks that names are strings and that a weight is one number per example.

    Raises:
      UsageError: A name is not a string, or `weight` is not a scalar number.
    """
    for name in spec:
        if not isinstance(name, str):
            raise UsageError(f"an entry is named {name!r}: its name must be a string")
    weight = spec.get(WEIGHT)
    if weight is None:
        return
    kind = weight.dtype
    is_number = kind.is_floating or kind.is_integer or kind.is_bool
    if weight.shape.rank != 0 or not is_number:
        raise UsageError(
            f"entry 'weight' has the shape {_shape(weight)} and dtype {kind.name} in "
            "each example: it must be one number"
        )


def _shape(entry: tf.TensorSpec) -> str:
    return "unknown" if entry.shape.rank is None else str(entry.shape)
