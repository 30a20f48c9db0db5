"""Optional metrics of a step: norms of gradients and updates, learning rates.

    trainer = Trainer(model, Adam(1e-3), forward, watch=["gradient_norm"])
    trainer.fit(batches, epochs=3)["gradient_norm"]     # means over an epoch's steps

As for the loss, a step is weighted in the mean by the sum of its batch's weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.train.gradients import Gradient
from lenet_tf.train.metrics import Sums
from lenet_tf.train.update import Update

GRADIENT_NORM = "gradient_norm"
UPDATE_NORM = "update_norm"
LEARNING_RATE = "learning_rate"
WATCHABLE = (GRADIENT_NORM, UPDATE_NORM, LEARNING_RATE)


@runtime_checkable
class HasRate(Protocol):
    """An optimizer that tells its learning rate."""

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float32 scalar, at a step (int64 scalar)."""


class StepWatch:
    """The metrics that are watched in the default step.

    With one update the metrics have the names below. With several, each update has its
    own metrics, with its name in front, such as `critic_gradient_norm`.

    Args:
      watch: Names of the metrics, among
        - "gradient_norm": the global norm of the update's gradient, before clipping;
        - "update_norm": the global norm of the change of the update's variables;
        - "learning_rate": the learning rate that the optimizer uses in the step.
        In a step that loss scaling skips, the norms are 0, and the learning rate is
        the one that it would have used.

    Raises:
      UsageError: A name is none of these.
    """

    def __init__(self, watch: Sequence[str] = ()) -> None:
        self._watch = [watch] if isinstance(watch, str) else list(watch)
        for what in self._watch:
            if what not in WATCHABLE:
                known = ", ".join(map(repr, WATCHABLE))
                raise UsageError(f"watch has {what!r}: choose among {known}")

    def names(self, updates: Mapping[str, Update]) -> list[str]:
        """Returns the names of the metrics.

        Raises:
          UsageError: An optimizer does not tell its learning rate.
        """
        for name, update in updates.items() if LEARNING_RATE in self._watch else ():
            if not isinstance(update.optimizer, HasRate):
                raise UsageError(
                    f"watch has {LEARNING_RATE!r}, but the optimizer of {name!r} is a "
                    f"{type(update.optimizer).__name__}, which has no rate(step): give "
                    "it this method, or do not watch the learning rate"
                )
        return [_key(what, name, updates) for what in self._watch for name in updates]

    def begin(
        self,
        updates: Mapping[str, Update],
        gradients: Mapping[str, Gradient],
        finite: tf.Tensor,
        step: tf.Tensor,
    ) -> Watched:
        """Records what can only be measured before the variables change.

        Args:
          updates: Updates by name.
          gradients: Gradient of each update, before clipping.
          finite: Whether all gradients are finite, bool scalar.
          step: Number of updates made before, int64 scalar.
        """
        watched = Watched({}, {})
        for name, update in updates.items():
            for what in self._watch:
                key = _key(what, name, updates)
                if what == GRADIENT_NORM:
                    norm = _global_norm(list(gradients[name].values()))
                    watched.values[key] = tf.where(finite, norm, tf.zeros_like(norm))
                elif what == LEARNING_RATE:
                    assert isinstance(update.optimizer, HasRate)
                    watched.values[key] = update.optimizer.rate(step)
                else:
                    watched.before[key] = [
                        (v, v.read_value()) for v in update.variables
                    ]
        return watched


@dataclasses.dataclass(frozen=True)
class Watched:
    """What is watched in one step.

    Attributes:
      values: Metric name -> value, scalar.
      before: Name of an update norm -> pairs of a variable and its value before the
        change.
    """

    values: Sums
    before: dict[str, list[tuple[tf.Variable, tf.Tensor]]]

    def end(self, weight: tf.Tensor) -> Sums:
        """Returns the metrics, after the variables have changed, as sums over a batch.

        Args:
          weight: Sum of the weights of the global batch, scalar.

        Returns:
          Metric name -> value times `weight`, float64 scalar.
        """
        values = dict(self.values)
        for name, pairs in self.before.items():
            values[name] = _global_norm(
                [_double(v.read_value()) - _double(old) for v, old in pairs]
            )
        return {name: _double(v) * _double(weight) for name, v in values.items()}


def _key(what: str, name: str, updates: Mapping[str, Update]) -> str:
    return what if len(updates) == 1 else f"{name}_{what}"


def _global_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the norm of all entries, float64: float32 squares could overflow."""
    squares = [tf.reduce_sum(tf.square(_double(tensor))) for tensor in tensors]
    return tf.sqrt(tf.add_n(squares))


def _double(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float64)
