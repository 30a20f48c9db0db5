"""Finds the newest whole checkpoint, and says what is wrong with the others.

    path = newest_whole(workdir / "checkpoints")      # None when none was ever saved
    restore_checkpoint(checkpoint, path)

Every tensor of a checkpoint is read and its checksum verified before anything of it is
used. Nothing that is read here can execute code: tensors, and JSON text.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.storage import READ_ERRORS, damage, newest_whole
from lenet_tf.errors import CheckpointError
from lenet_tf.optim.averaging import Average

_KEY_SUFFIX = "/.ATTRIBUTES/"


def restore_checkpoint(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores every variable of a checkpoint.

    Raises:
      CheckpointError: it lacks a variable of the program, or the program one of its;
        they are named.
    """
    try:
        _matched(lambda: checkpoint.restore(path), "assert_consumed")
    except (AssertionError, *READ_ERRORS) as error:
        reason = _difference(checkpoint, path) or str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit this program: {reason}") from error


def restore_model(model: tf.Module, path: str, average: Average | None = None) -> None:
    """Restores the weights of a model alone, for evaluation or export.

    Args:
      model: whose weights are wanted.
      path: prefix of a checkpoint.
      average: of the weights, restored as well when there is one.

    Raises:
      CheckpointError: the checkpoint lacks one of their variables.
    """
    parts = (
        {"model": model} if average is None else {"model": model, "average": average}
    )
    checkpoint = tf.train.Checkpoint(**parts)
    try:
        _matched(lambda: checkpoint.read(path), "assert_existing_objects_matched")
    except (AssertionError, *READ_ERRORS) as error:
        reason = damage(path) or str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit this model: {reason}") from error


def _matched(read: Callable[[], Any], assertion: str) -> None:
    status = None
    try:
        status = read()
        getattr(status, assertion)()
    finally:
        if status is not None:
            status.expect_partial()  # what is missing is said once, by the caller


def _difference(checkpoint: tf.train.Checkpoint, path: str) -> str:
    """Names what a checkpoint lacks, has too much, or has of another shape."""
    try:
        there = _shapes(path)
        with tempfile.TemporaryDirectory() as directory:
            here = _shapes(checkpoint.write(f"{directory}/program"))
    except READ_ERRORS as error:
        return str(error).splitlines()[0]
    lists = {
        "it lacks": here.keys() - there.keys(),
        "the program has no": there.keys() - here.keys(),
        "of another shape are": {
            f"{key} ({there[key]}, in the program {here[key]})"
            for key in here.keys() & there.keys()
            if here[key] != there[key]
        },
    }
    return "; ".join(
        f"{what} {', '.join(sorted(names))}" for what, names in lists.items() if names
    )


def _shapes(path: str) -> dict[str, list[int]]:
    shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    return {
        key.split(_KEY_SUFFIX)[0]: shape
        for key, shape in shapes.items()
        if _KEY_SUFFIX in key
    }


def find_checkpoint(workdir: pathlib.Path, which: str = "latest") -> str:
    """Finds a checkpoint of a run.

    Args:
      workdir: of the run.
      which: "latest" or "best".

    Returns:
      Its path prefix.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    if which == "best":
        path = BestCheckpoints(tf.train.Checkpoint(), workdir / "best", "").path()
        reason = path and damage(path)
        if reason:
            raise CheckpointError(f"{path} is damaged: {reason}; take the latest")
    elif which == "latest":
        path = newest_whole(workdir / "checkpoints")
    else:
        raise CheckpointError(f"which is {which!r}: choose 'latest' or 'best'")
    if path is None:
        raise CheckpointError(f"{workdir} has no {which} checkpoint: train first")
    return path
