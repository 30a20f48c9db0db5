"""Error messages for an inner loop that has failed."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from lenet_tf.errors import DataError, NonFiniteError
from lenet_tf.parallel.collectives import value_of
from lenet_tf.train.state import TrainState

_BAD_LABEL = re.compile(
    r"label value of (\S+) which is outside the valid range of (\[.+?\))"
)


def non_finite(state: TrainState, start: int, step: int) -> NonFiniteError:
    """Makes the error that names what is NaN or infinite.

    Args:
      state: State of the run after the failed step.
      start: Number of steps done before the loop.
      step: Number of the failed step, from 1.

    Returns:
      The error, to be raised by the caller.
    """
    losses = {update.loss for update in state.updates.values()}
    totals = [total for key, total in state.metrics.totals.items() if key in losses]
    hit = [v.name.split(":")[0] for v in state.trained if not _finite(v)]
    scale = state.loss_scale
    what = [] if all(map(_finite, totals)) else ["the loss"]
    if hit:
        what.append(f"the gradient of {hit[0]}")
    elif scale is not None and float(value_of(scale.scale)) < 1:
        what.append("the gradient of the scaled loss, however small the scale,")
    subject = " and ".join(what or ["the gradient"])
    verb = "are" if len(what) > 1 else "is"
    return NonFiniteError(
        f"{subject} {verb} not finite at step {step} (in the loop of steps {start + 1} "
        f"to {step}): lower the learning rate, clip the gradient, or look at the data"
    )


def _finite(variable: tf.Variable) -> bool:
    return bool(np.isfinite(tf.cast(variable, tf.float64).numpy()).all())


def bad_label(error: tf.errors.OpError) -> DataError | None:
    """Turns TensorFlow's long error about a label out of range into one line.

    Args:
      error: Error that a loop has raised.

    Returns:
      The error to raise in its place; None if it is not about a label.
    """
    label = _BAD_LABEL.search(error.message)
    if label is None:
        return None
    return DataError(f"a label is {label[1]}: labels must be in {label[2]}")
