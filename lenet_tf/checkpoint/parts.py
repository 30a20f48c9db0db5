"""Compares a module with a part of the model in a checkpoint.

    start = find_part(nodes, "body")
    compare_part(model.body, nodes, start, reader).taken      # {"weights": (7, ...)}

As in `compare`, variables are matched by the attributes that lead to them, here from
the part and from the module on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from lenet_tf.checkpoint.compare import Node, list_names, match, values_by_key
from lenet_tf.errors import CheckpointError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def find_part(nodes: Sequence[Node], part: str | None) -> int:
    """Returns the index of a run's model, or of a part of it, in a checkpoint.

    Args:
      nodes: Objects of the checkpoint.
      part: Attributes that lead from the model to the part, such as "body" or
        "encoder/layers/0"; None for the whole model.

    Raises:
      CheckpointError: There is no such part.
    """
    model = walk(nodes, 0, "model")
    if model is None:
        raise CheckpointError("it holds no `model`, as that of a run does")
    index = model if part is None else walk(nodes, model, part)
    if index is None:
        names = list_names({child.local_name for child in nodes[model].children})
        raise CheckpointError(f"part is {part!r}, but its model has {names}")
    return index


def walk(nodes: Sequence[Node], start: int, attributes: str) -> int | None:
    """Follows attributes from an object of a checkpoint to another one below it.

    Args:
      nodes: Objects of the checkpoint.
      start: Index of the first object.
      attributes: Names of the attributes, written as in a key: "encoder/layers/0".

    Returns:
      Index of the object, or None if there is none.
    """
    index = start
    for name in attributes.split("/"):
        local_name = name.replace(".S", "/").replace("..", ".")
        children = {child.local_name: child.node_id for child in nodes[index].children}
        if local_name not in children:
            return None
        index = children[local_name]
    return index


class PartComparison(NamedTuple):
    """How a module and a part of a checkpoint's model fit.

    Attributes:
      taken: Key in the module -> index of the variable in the checkpoint, and its key.
      kept: Keys of the module's other variables.
      left: Keys of the checkpoint's other variables.
    """

    taken: dict[str, tuple[int, str]]
    kept: tuple[str, ...]
    left: tuple[str, ...]


def compare_part(
    module: tf.Module,
    nodes: Sequence[Node],
    start: int,
    reader: tf.train.CheckpointReader,
) -> PartComparison:
    """Compares a module with the part of a checkpoint that begins at an object.

    Raises:
      CheckpointError: No variable fits, or the shape or dtype of one differs.
    """
    matched = match(module, nodes, start)
    keys = {
        id(value): key
        for key, value in values_by_key(module).items()
        if isinstance(value, tf.Variable)
    }
    taken: dict[str, tuple[int, str]] = {}
    left: list[str] = []
    unfit: list[str] = []
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    for index in _below(nodes, start):
        for stored in (
            attribute.checkpoint_key for attribute in nodes[index].attributes
        ):
            variable = matched.get(index)
            key = keys.get(id(variable))
            if not isinstance(variable, tf.Variable) or key is None:
                left.append(stored.removesuffix(_VALUE))
                continue
            taken[key] = index, stored
            here = variable.shape.as_list(), variable.dtype.base_dtype
            if here != (shapes[stored], dtypes[stored]):
                unfit.append(
                    f"{key} ({dtypes[stored].name} {shapes[stored]}, in the module "
                    f"{here[1].name} {here[0]})"
                )
    if unfit:
        raise CheckpointError(
            f"the shape or dtype differs for {list_names(unfit)}; to load what fits, "
            "give a part, as in load_weights(model.body, run, part='body')"
        )
    if not taken:
        raise CheckpointError(
            f"no variable fits: the module has {list_names(keys.values())}, and the "
            f"checkpoint {list_names(left)}"
        )
    kept = tuple(key for key in keys.values() if key not in taken)
    return PartComparison(taken, kept, tuple(left))


def _below(nodes: Sequence[Node], start: int) -> list[int]:
    """Returns the indices of an object and of all those below it."""
    indices = [start]
    seen = {start}
    for index in indices:  # which grows
        new = dict.fromkeys(child.node_id for child in nodes[index].children)
        indices += [child for child in new if child not in seen]
        seen.update(new)
    return indices
