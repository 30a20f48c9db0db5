"""Compares a checkpoint with the variables that a program would restore from it.

    difference = compare(checkpoint, tf.train.load_checkpoint(path))
    difference.missing                       # ("model/dense/w", ...)

TensorFlow matches the objects of a checkpoint with those of a program by the names of
the attributes that lead to them from the root. `compare` does the same before anything
is restored, so that no variable is changed when the two do not fit.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Sequence
from typing import Protocol

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from lenet_tf.errors import CheckpointError

_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_KEY_SUFFIX = "/.ATTRIBUTES/"
_VALUES = (tf.Variable, tf.train.experimental.PythonState)
_MOST_NAMES = 10


@dataclasses.dataclass(frozen=True)
class Difference:
    """How the values of a checkpoint and of a program differ.

    Attributes:
      missing: Keys that the program has and the checkpoint lacks.
      surplus: Keys that the checkpoint has and the program lacks.
      reshaped: Keys that both have, with the two shapes or dtypes that differ.
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    reshaped: tuple[str, ...] = ()

    def without(self, prefixes: Collection[str]) -> Difference:
        """Returns it without the missing and surplus keys that begin with a prefix."""
        starts = tuple(prefixes)
        return Difference(
            tuple(key for key in self.missing if not key.startswith(starts)),
            tuple(key for key in self.surplus if not key.startswith(starts)),
            self.reshaped,
        )

    def __str__(self) -> str:
        parts = {
            "it lacks": self.missing,
            "the program has no": self.surplus,
            "the shape or dtype differs for": self.reshaped,
        }
        text = "; ".join(f"{k} {list_names(v)}" for k, v in parts.items() if v)
        if any(key.startswith("optimizer") for key in (*self.missing, *self.surplus)):
            text += " (another optimizer, or another kind of learning rate?)"
        return text


def list_names(names: Collection[str]) -> str:
    """Returns the sorted names as a comma-separated list, at most ten of them."""
    shown, more = sorted(names)[:_MOST_NAMES], len(names) - _MOST_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def compare(root: tf.train.Checkpoint, reader: tf.train.CheckpointReader) -> Difference:
    """Compares the variables and Python states of a program with a checkpoint's.

    Args:
      root: Objects that would be restored.
      reader: Reader of the checkpoint's files.

    Raises:
      CheckpointError: The checkpoint was not written by `tf.train.Checkpoint`.
    """
    nodes = object_graph(reader)
    matched = match(root, nodes)
    # Slot variables of TensorFlow's older optimizers are listed apart from children.
    # TensorFlow itself checks them.
    slots = {s.slot_variable_node_id for node in nodes for s in node.slot_variables}
    known = {id(value) for value in matched.values()}
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    surplus, reshaped = [], []
    for index, node in enumerate(nodes):
        for attribute in node.attributes:
            key = attribute.checkpoint_key
            name, value = key.split(_KEY_SUFFIX)[0], matched.get(index)
            if index not in matched and index not in slots:
                surplus.append(name)
            elif isinstance(value, tf.Variable) and key in shapes:
                if not value.shape.is_compatible_with(shapes[key]):
                    here = value.shape.as_list()
                    reshaped.append(f"{name} ({shapes[key]}, in the program {here})")
                elif value.dtype.base_dtype != dtypes[key]:
                    here = value.dtype.name
                    there = dtypes[key].name
                    reshaped.append(f"{name} ({there}, in the program {here})")
    missing = [name for name, v in values_by_key(root).items() if id(v) not in known]
    return Difference(tuple(missing), tuple(surplus), tuple(reshaped))


class _Child(Protocol):
    local_name: str
    node_id: int


class _Attribute(Protocol):
    checkpoint_key: str


class _Slot(Protocol):
    slot_variable_node_id: int


class Node(Protocol):
    """A message of TensorFlow's trackable_object_graph.proto."""

    children: Sequence[_Child]
    attributes: Sequence[_Attribute]
    slot_variables: Sequence[_Slot]


def object_graph(reader: tf.train.CheckpointReader) -> Sequence[Node]:
    """Returns the objects of a checkpoint, the root first.

    Raises:
      CheckpointError: The checkpoint was not written by `tf.train.Checkpoint`.
    """
    if not reader.has_tensor(_GRAPH_KEY):
        raise CheckpointError("it was not written by tf.train.Checkpoint")
    return trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor(_GRAPH_KEY)
    ).nodes


def match(root: object, nodes: Sequence[Node], start: int = 0) -> dict[int, object]:
    """Matches the objects below `root` with those of a checkpoint by attribute names.

    Args:
      root: Object of the program.
      nodes: Objects of the checkpoint.
      start: Index of the object in the checkpoint that `root` stands for.

    Returns:
      Index in `nodes` -> object of the program.
    """
    matched, queue = {start: root}, collections.deque([start])
    while queue:
        index = queue.popleft()
        children = tf.train.TrackableView.children(matched[index])
        for child in nodes[index].children:
            if child.node_id not in matched and child.local_name in children:
                matched[child.node_id] = children[child.local_name]
                queue.append(child.node_id)
    return matched


def values_by_key(root: object) -> dict[str, object]:
    """Returns all variables and Python states below an object, by checkpoint key.

    The key is made of the attributes that lead to a value, as in "hidden/weights".
    """
    values: dict[str, object] = {}
    seen, queue = {id(root): root}, collections.deque([("", root)])
    while queue:
        path, parent = queue.popleft()
        for name, child in tf.train.TrackableView.children(parent).items():
            if id(child) in seen:
                continue
            seen[id(child)] = child
            # TensorFlow's escapes for dots and slashes in names.
            key = path + name.replace(".", "..").replace("/", ".S")
            queue.append((f"{key}/", child))
            if isinstance(child, _VALUES):
                values[key] = child
    return values
