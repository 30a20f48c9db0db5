"""Restores checkpoints: a whole run to resume, or the weights of a model alone.

    restore_checkpoint(tf.train.Checkpoint(model=model, step=step), path)
    restore_model(model, find_checkpoint("runs/mnist", "best"))

A checkpoint that does not fit is refused before any variable is changed. Only tensors
and JSON text are read, so a checkpoint cannot execute code.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection
from typing import Literal

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.compare import (
    Difference,
    compare,
    list_names,
    values_by_key,
)
from lenet_tf.checkpoint.storage import (
    READ_ERRORS,
    find_damage,
    newest_whole,
    readable_prefix,
    reason_of,
)
from lenet_tf.errors import CheckpointError
from lenet_tf.optim.averaging import Average

# Variable that counts calls of `tf.train.Checkpoint.save`; it is no part of a run.
_SAVE_COUNTER = "save_counter"
RECORD = "record/.ATTRIBUTES/py_state"
AVERAGES = "average/averages/{}/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes:
      path: Prefix of the checkpoint's files.
      missing: Optional keys that the checkpoint lacks; their variables kept their
        values.
    """

    path: str
    missing: tuple[str, ...] = ()


def restore_checkpoint(
    checkpoint: tf.train.Checkpoint, path: str, optional: Collection[str] = ()
) -> Restored:
    """Restores every variable and Python state of a checkpoint.

    Args:
      checkpoint: Objects to restore; their variables must exist.
      path: Prefix of the checkpoint's files.
      optional: Prefixes of keys, such as "metrics/totals/", that only one side may
        have. What the checkpoint lacks keeps its value; what the program lacks is
        ignored.

    Returns:
      Path that was read, and the optional keys that it lacks.

    Raises:
      CheckpointError: The checkpoint is damaged, lacks a variable of the program, holds
        one that the program lacks, or one of another shape or dtype. In these cases
        nothing has been restored.
    """
    path = str(path)
    _ = checkpoint.save_counter  # created now, or it would be restored later

    def check(difference: Difference) -> None:
        unfit = difference.without([_SAVE_COUNTER, *optional])
        if unfit != Difference((), ()):
            raise CheckpointError(str(unfit))

    found = _restore(checkpoint, path, "this program", check)
    if set(found.surplus) - {_SAVE_COUNTER}:
        logging.info("%s: not restored, %s", path, list_names(found.surplus))
        # TensorFlow would restore them when the program creates variables of the same
        # names, from a file that may be gone by then.
        for part in tf.train.TrackableView(checkpoint).descendants():
            part._deferred_dependencies.clear()
    return Restored(path, tuple(k for k in found.missing if k != _SAVE_COUNTER))


def restore_model(
    model: tf.Module,
    path: str,
    average: Average | None = None,
    weights: Literal["averaged", "raw"] | None = None,
) -> None:
    """Restores the weights of a model alone, for evaluation or export.

    A run with a moving average of the weights is evaluated with the averaged weights,
    so by default the model gets these if the checkpoint has them.

    A `Trainer` with `ema` evaluates its own averages, whatever the model has: to
    evaluate a checkpoint by it, pass `trainer.state.average` too.

    Args:
      model: Model whose variables exist already.
      path: Prefix of a checkpoint's files.
      average: Moving average to restore as well; the model then gets the raw weights,
        as in a trainer, which swaps them for evaluation.
      weights: Weights that the model gets, "averaged" or "raw"; None for the averaged
        ones if there are any. Without effect if `average` is given.

    Raises:
      CheckpointError: `weights` is unknown, the model has no variables yet, or the
        checkpoint is damaged, does not fit, or lacks the averaged weights.
    """
    if weights not in ("averaged", "raw", None):
        raise CheckpointError(f"weights is {weights!r}: choose 'averaged' or 'raw'")
    if not model.variables:
        raise CheckpointError(
            f"{model.name} has no variables yet: call it on an example first"
        )
    if pathlib.Path(path).is_dir():
        raise CheckpointError(
            f"{path} is a folder: take find_checkpoint({str(path)!r}), which returns "
            "the path of a checkpoint in it"
        )
    path = str(path)
    parts = {"model": model} if average is None else dict(model=model, average=average)

    def check(difference: Difference) -> None:
        unfit = dataclasses.replace(difference, surplus=())
        if unfit != Difference((), ()):
            raise CheckpointError(str(unfit))

    _restore(tf.train.Checkpoint(**parts), path, "this model", check)
    if average is None and weights != "raw":
        _assign_averages(model, path, required=weights == "averaged")


def _assign_averages(model: tf.Module, path: str, required: bool) -> None:
    """Gives a model the averaged weights of a checkpoint that has them."""
    with readable_prefix(path) as prefix:
        reader = tf.train.load_checkpoint(prefix)
        keys = map(AVERAGES.format, range(len(reader.get_variable_to_shape_map())))
        values = [reader.get_tensor(key) for key in keys if reader.has_tensor(key)]
        record = reader.get_tensor(RECORD) if reader.has_tensor(RECORD) else b"{}"
    if not values:
        if required:
            raise CheckpointError(
                f"{path} has no averaged weights: choose weights='raw'"
            )
        return
    variables = _averaged_variables(model, record)
    if [v.shape for v in variables] != [value.shape for value in values]:
        raise CheckpointError(
            f"the averaged weights in {path} are not those of this model: choose "
            "weights='raw', or give `average`"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.cast(value, variable.dtype))


def _averaged_variables(model: tf.Module, record: bytes) -> list[tf.Variable]:
    """Returns the variables that a run has averaged, in its order.

    Args:
      model: Model.
      record: JSON text of the run's record. Those of version 0.1 do not tell, but their
        only order is that of the model.
    """
    trained = json.loads(record).get("trained")
    if not trained:
        return list(model.trainable_variables)
    values = values_by_key(model)
    keys = [key for update in trained.values() for key in update]
    return [values[key] for key in keys if isinstance(values.get(key), tf.Variable)]


def _restore(
    checkpoint: tf.train.Checkpoint,
    path: str,
    what: str,
    check: Callable[[Difference], None],
) -> Difference:
    """Restores what fits, unless `check` raises an error about the difference."""
    with readable_prefix(path) as prefix:
        try:
            difference = compare(checkpoint, tf.train.load_checkpoint(prefix))
            check(difference)
            status = checkpoint.read(prefix)
            status.expect_partial()  # No warnings: `check` has accepted it.
            if difference == Difference((), ()):
                status.assert_consumed()
            elif not difference.missing:
                status.assert_existing_objects_matched()
            return difference
        except CheckpointError as error:
            raise CheckpointError(f"{path} does not fit {what}: {error}") from error
        except (AssertionError, *READ_ERRORS) as error:
            damage = find_damage(path)
            reason = damage or reason_of(error)
            fault = "is damaged" if damage else f"does not fit {what}"
            raise CheckpointError(f"{path} {fault}: {reason}") from error


def find_checkpoint(
    workdir: pathlib.Path | str, which: str = "latest", rank: int = 1
) -> str:
    """Finds a checkpoint of a run.

    Args:
      workdir: Folder of the run.
      which: "latest" or "best".
      rank: Place among the best ones that were kept (`Saver(keep_best=...)`): 1 for the
        best, 2 for the second best.

    Returns:
      Prefix of the checkpoint's files.

    Raises:
      CheckpointError: There is none, it is damaged or cannot be read, `which` is
        unknown, or so many were not kept.
    """
    workdir = pathlib.Path(workdir)
    if which == "best":
        path = BestCheckpoints(tf.train.Checkpoint(), workdir / "best", "").path(rank)
        reason = path and find_damage(path)
        if reason:
            raise CheckpointError(
                f"{path} is damaged: {reason}; put a copy back, or use the latest"
            )
    elif which == "latest":
        path = newest_whole(workdir / "checkpoints")
    else:
        raise CheckpointError(f"which is {which!r}: choose 'latest' or 'best'")
    if path is None:
        raise CheckpointError(f"{workdir} has no {which} checkpoint: train first")
    return path
