"""Loads the weights of another run into a model, or into a part of it.

    load_weights(model, "runs/body")                        # those of the best epoch
    load_weights(model.body, "runs/body", part="body")      # the new head stays as made
    load_weights(model, "runs/body/checkpoints/step-700", weights="raw")

Call it before the `Trainer` is made: a moving average of the weights, and optimizers
that remember weights, then begin with the loaded ones.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.compare import (
    Node,
    list_names,
    object_graph,
    values_by_key,
)
from lenet_tf.checkpoint.parts import compare_part, find_part, walk
from lenet_tf.checkpoint.restore import AVERAGES, RECORD, find_checkpoint
from lenet_tf.checkpoint.storage import (
    READ_ERRORS,
    find_damage,
    newest_whole,
    readable_prefix,
    reason_of,
)
from lenet_tf.errors import CheckpointError
from lenet_tf.optim.averaging import Average


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What `load_weights` has loaded.

    Attributes:
      path: Prefix of the files of the checkpoint.
      taken: Keys of the module's variables that were loaded, such as "hidden/weights".
      averaged: Keys among `taken` that got the moving average of the weights.
      kept: Keys of the module's variables that the checkpoint lacks; they are as they
        were.
      left: Keys of the checkpoint, below the part, that the module lacks.
    """

    path: str
    taken: tuple[str, ...]
    averaged: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        parts = {
            "took": self.taken,
            "with averaged weights": self.averaged,
            "kept as they were": self.kept,
            "left in the checkpoint": self.left,
        }
        return "; ".join(
            f"{what} {len(names)} ({list_names(names)})"
            for what, names in parts.items()
            if names
        )


def load_weights(
    module: tf.Module,
    source: pathlib.Path | str,
    part: str | None = None,
    which: Literal["best", "latest"] = "best",
    weights: Literal["averaged", "raw"] | None = None,
    average: Average | None = None,
) -> Loaded:
    """Loads the weights of a run's model into a module, by the names of attributes.

    Variables that only one side has are left as they are; a line of the log and the
    result name them. Nothing is changed when an error is raised.

    Args:
      module: Model, or part of a model, that gets the weights. Its variables exist.
      source: Directory of a run, or prefix of a checkpoint's files.
      part: Attributes that lead from the run's model to the part to load, such as
        "body" or "encoder/layers/0"; None for the whole model.
      which: Checkpoint of the run to take: "best" or "latest".
      weights: Weights to take where the run has a moving average: "averaged", or "raw";
        None for the averaged ones if there are any.
      average: Moving average of a trainer that is there already, as in
        `trainer.state.average`. It begins anew with the loaded weights. Without it, a
        trainer with `ema` still evaluates the weights that it was made with.

    Returns:
      Names of what was loaded and of what was not.

    Raises:
      CheckpointError: There is no such checkpoint or part, no variable fits, a shape or
        dtype differs, the averaged weights are missing, or `average` is not of this
        module.
    """
    if weights not in ("averaged", "raw", None):
        raise CheckpointError(f"weights is {weights!r}: choose 'averaged' or 'raw'")
    if not module.variables:
        raise CheckpointError(
            f"{module.name} has no variables yet: call it on an example first"
        )
    path = _path_of(source, which)
    try:
        with readable_prefix(path) as prefix:
            reader = tf.train.load_checkpoint(prefix)
            nodes = object_graph(reader)
            start = find_part(nodes, part)
            averages = {} if weights == "raw" else _averages(reader, nodes)
            if weights == "averaged" and not averages:
                raise CheckpointError(
                    "it has no averaged weights: choose weights='raw'"
                )
            found = compare_part(module, nodes, start, reader)
            values = {
                key: reader.get_tensor(averages.get(node, stored))
                for key, (node, stored) in found.taken.items()
            }
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    except READ_ERRORS as error:
        reason = find_damage(path) or reason_of(error)
        raise CheckpointError(f"{path} cannot be loaded: {reason}") from error
    _assign(module, values, average)
    loaded = Loaded(
        path,
        taken=tuple(values),
        averaged=tuple(k for k, (node, _) in found.taken.items() if node in averages),
        kept=found.kept,
        left=found.left,
    )
    # Louder if only a part of the module was loaded, which may be a mistake.
    (logging.warning if loaded.kept else logging.info)("%s: %s", path, loaded)
    return loaded


def _path_of(source: pathlib.Path | str, which: str) -> str:
    """Returns the prefix of the checkpoint's files."""
    directory = pathlib.Path(source)
    if not directory.is_dir():
        if not pathlib.Path(f"{source}.index").exists():
            raise CheckpointError(
                f"{source} is neither the directory of a run nor a checkpoint: give "
                "one, such as runs/mnist or runs/mnist/checkpoints/step-700"
            )
        return str(source)
    try:
        return find_checkpoint(directory, which)
    except CheckpointError as error:
        chosen = (directory / "best" / "best.json").exists()
        if which == "best" and not chosen and newest_whole(directory / "checkpoints"):
            raise CheckpointError(
                f"{directory} has no best checkpoint, as it was not validated: choose "
                "which='latest'"
            ) from error
        raise


def _averages(
    reader: tf.train.CheckpointReader, nodes: Sequence[Node]
) -> dict[int, str]:
    """Returns index of a variable -> key of its moving average in the checkpoint."""
    if not reader.has_tensor(AVERAGES.format(0)):
        return {}
    record = reader.get_tensor(RECORD) if reader.has_tensor(RECORD) else b"{}"
    trained: Mapping[str, Sequence[str]] = json.loads(record).get("trained") or {}
    if not trained:
        raise CheckpointError(
            "it does not tell which of its averaged weights belongs to which variable, "
            "as before version 0.2: choose weights='raw'"
        )
    keys = [key for update in trained.values() for key in update]
    indices = [walk(nodes, 0, f"model/{key}") for key in keys]
    return {
        index: AVERAGES.format(place)
        for place, index in enumerate(indices)
        if index is not None
    }


def _assign(
    module: tf.Module, values: Mapping[str, np.ndarray], average: Average | None
) -> None:
    """Gives values to variables of a module, and to their moving averages."""
    variables = values_by_key(module)
    averages = {}
    if average is not None:
        pairs = zip(average._variables, average.averages, strict=True)
        averages = {id(variable): value for variable, value in pairs}
        if not any(id(variables[key]) in averages for key in values):
            raise CheckpointError(
                "average is of other variables: give that of the module's own trainer"
            )
    for key, value in values.items():
        variable = variables[key]
        assert isinstance(variable, tf.Variable)
        variable.assign(tf.cast(value, variable.dtype))
        if id(variable) in averages:
            mean = averages[id(variable)]
            mean.assign(tf.cast(variable, mean.dtype))
