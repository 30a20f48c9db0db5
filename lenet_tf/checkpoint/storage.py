"""Checkpoints as files: written whole or not at all, read through before they are used.

write(checkpoint, "checkpoints/step-700")
damage("checkpoints/step-700")           # None, or what is wrong with it
newest_whole(workdir / "checkpoints")    # None when none was ever saved
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil

import tensorflow as tf
from absl import logging

from lenet_tf.errors import CheckpointError

# What TensorFlow raises for files that are cut, empty, overwritten or gone.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, OSError)
_FILE = re.compile(r"(?P<name>\w+-\d+)\.(index|data-\d+-of-\d+)")


def write(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Writes a checkpoint whole, its index last, or not at all.

    Raises:
      CheckpointError: it cannot be written, as when the disk is full.
    """
    directory = pathlib.Path(path).parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _ = checkpoint.save_counter  # made now, so that every file has it
        checkpoint.write(path)
    except (tf.errors.OpError, OSError) as error:
        with contextlib.suppress(OSError):
            delete(path)
        raise CheckpointError(
            f"{path} cannot be saved, the one before it is whole: "
            f"{str(error).splitlines()[0]}"
        ) from error


def delete(path: str) -> None:
    """Deletes the files of a checkpoint, half-written ones too, the index first."""
    prefix = pathlib.Path(path)
    shutil.rmtree(f"{path}_temp", ignore_errors=True)
    for file in sorted(prefix.parent.glob(f"{prefix.name}.*"), reverse=True):
        file.unlink(missing_ok=True)


def remove_unfinished(directory: pathlib.Path) -> None:
    """Deletes the temporary directories of saves that were killed."""
    for left in directory.glob("*-*_temp"):
        shutil.rmtree(left, ignore_errors=True)


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
