"""Finds the newest whole checkpoint, and says what is wrong with the others.

    path = newest_whole(workdir / "checkpoints")      # None when none was ever saved
    restore(checkpoint, path)

Every tensor of a checkpoint is read and its checksum verified before anything of it is
used. Nothing that is read here can execute code: tensors, and JSON text.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from lenet_tf.ema import Average
from lenet_tf.errors import CheckpointError

# What TensorFlow raises for files that are cut, empty, overwritten or gone.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, OSError)
_FILE = re.compile(r"(?P<name>\w+-\d+)\.(index|data-\d+-of-\d+)")
_KEY_SUFFIX = "/.ATTRIBUTES/"


def damage(path: str) -> str | None:
    """Reads a checkpoint through, and returns what is wrong with it, or None.

    Args:
      path: its prefix.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    except READ_ERRORS as error:
        prefix = pathlib.Path(path)
        for kind in ("index", "data"):
            if not list(prefix.parent.glob(f"{prefix.name}.{kind}*")):
                return f"its {kind} file is missing"
        return str(error).splitlines()[0]
    return None


def saved(directory: pathlib.Path) -> list[str]:
    """Returns the path prefixes of all that looks like a checkpoint, newest first.

    Of one step `pending-...`, saved before the epoch's row, is older than `step-...`.
    """
    matches = map(_FILE.fullmatch, (file.name for file in directory.glob("*-*.*")))
    names = {match["name"] for match in matches if match}
    newest_first = sorted(
        names, key=lambda name: (int(name.rsplit("-", 1)[1]), name), reverse=True
    )
    return [str(directory / name) for name in newest_first]


def newest_whole(directory: pathlib.Path) -> str | None:
    """Finds the newest checkpoint that is whole.

    Does not trust the state file, which may be empty or name what is not there. What is
    damaged is reported, with the reason, and left as it is. A first save that a kill
    has cut short is no checkpoint yet: the state file comes after it.

    Args:
      directory: of one manager's checkpoints.

    Returns:
      The path prefix; None when there is no trace of a checkpoint.

    Raises:
      CheckpointError: there are checkpoints, or a state file, but none is whole.
    """
    found = saved(directory)
    reasons: list[str] = []
    for path in found:
        reason = damage(path)
        if reason is None:
            for line in reasons:
                logging.warning("damaged checkpoint passed over: %s", line)
            return path
        reasons.append(f"{pathlib.Path(path).name}: {reason}")
    if (directory / "checkpoint").exists():
        reasons = reasons or ["the state file names checkpoints that are not there"]
    elif len(reasons) == 1:
        logging.warning("the first save was cut short, starting afresh: %s", *reasons)
        return None
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {directory} is whole ({'; '.join(reasons)}): put one "
            "back, or remove the directory to start afresh"
        )
    return None


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
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
