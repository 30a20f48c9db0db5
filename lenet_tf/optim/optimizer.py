"""What all optimizers share: the learning rate, the slots and the registry.

    optimizer = Adam(learning_rate=1e-3)
    optimizer.build(model.trainable_variables)        # slots exist before step 1
    optimizer.apply(gradients, model.trainable_variables, step)

Each optimizer has a file of its own: the algorithm as a pure function in plain
operations, with its source, and a class that keeps the slots and does the same, through
TensorFlow's fused kernel if there is one. Tests check that both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import local_handle
from lenet_tf.registry import Registry

LearningRate: TypeAlias = float | tf.Variable | Callable[[tf.Tensor], tf.Tensor]

_SMALLEST, _LARGEST = np.finfo(np.float32).tiny, np.finfo(np.float32).max


class Optimizer(tf.Module):
    """Base class of the optimizers.

    To change the learning rate during training, for example in an action, make it a
    `tf.Variable`: every step reads it, and checkpoints hold it.

        optimizer = SGD(tf.Variable(0.1))
        optimizer.learning_rate.assign(0.01)          # at any time

    Args:
      learning_rate: Number above 0; or a `tf.Variable`, float scalar; or a schedule,
        a function from the step (int64 scalar, from 0) to a float scalar.
      name: Name of the module.

    Attributes:
      learning_rate: As given. It cannot be replaced by another one.
      slots: Slot name -> one variable for each parameter, in the parameters' order.

    Raises:
      UsageError: The learning rate is not above 0, outside of float32's range, or a
        variable that is not a float scalar.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, learning_rate: LearningRate, name: str) -> None:
        super().__init__(name=name)
        if not callable(learning_rate):
            _check_rate(learning_rate)
        self.learning_rate = learning_rate
        self.slots: dict[str, list[tf.Variable]] = {}

    def __setattr__(self, name: str, value: object) -> None:
        # The traced graph would silently go on with the first one.
        if name == "learning_rate" and "learning_rate" in vars(self):
            raise UsageError(
                f"the learning_rate of {self.name} cannot be replaced: make the "
                f"optimizer with a variable, {type(self).__name__}(tf.Variable(...)), "
                "and call optimizer.learning_rate.assign(...)"
            )
        super().__setattr__(name, value)

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the slots: zeros of the variables' shapes.

        They have the variables' dtypes, but float32 for bfloat16 and float16, in which
        small changes of a running mean would be rounded away.

        Raises:
          UsageError: The slots were made before, or the schedule cannot be computed.
        """
        if self.slots:
            raise UsageError(f"{self.name} has its slots already: make another one")
        if callable(self.learning_rate):
            # Finds mistakes in the schedule here, not in the first step.
            traced = tf.function(self.rate, autograph=False)
            traced.get_concrete_function(tf.TensorSpec([], tf.int64))
        self.slots = {
            slot: [_slot(variable, slot) for variable in variables]
            for slot in self.slot_names
        }

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float32 scalar, at a step (int64 scalar, from 0).

        Raises:
          UsageError: The schedule cannot be computed, or gives no scalar.
        """
        if not callable(self.learning_rate):
            return tf.cast(self.learning_rate, tf.float32)
        try:
            rate = tf.cast(self.learning_rate(step), tf.float32)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            if isinstance(error, UsageError):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"the schedule of {self.name} cannot be computed ({reason}): the step "
                "is an int64 tensor; begin with step = tf.cast(step, tf.float32), and "
                "take tf.where for a condition"
            ) from error
        if rate.shape.rank != 0:
            raise UsageError(
                f"the schedule of {self.name} gives shape {rate.shape}: return a scalar"
            )
        return rate

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """Updates this replica's copy of the variables and slots in place.

        Args:
          gradients: Gradients of the global mean loss, the same on every replica.
          variables: Variables that were given to `build`, in that order.
          step: Number of updates that were made before, int64 scalar.
        """
        raise TypeError(f"{type(self).__name__} has no update rule: define apply()")


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", positional=1)


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Sets this replica's copy of a variable, rounding the value to its dtype."""
    tf.raw_ops.AssignVariableOp(
        resource=local_handle(variable), value=tf.cast(value, variable.dtype)
    )


def is_matrix(variable: tf.Variable) -> bool:
    """Whether a variable has two or more axes, as matrices and kernels have."""
    return variable.shape.rank > 1


def check_weight_decay(weight_decay: float) -> None:
    """Raises UsageError if a weight decay is below 0, or float32 cannot hold it."""
    if not 0 <= weight_decay <= _LARGEST:
        raise UsageError(
            f"weight_decay is {weight_decay}: it must be a number of at least 0"
        )


def accumulation_dtype(variable: tf.Variable) -> tf.DType:
    """Returns the dtype of running means for a variable: float32 or wider."""
    return tf.float32 if variable.dtype.size < 4 else variable.dtype


def _check_rate(rate: float | tf.Variable) -> None:
    if isinstance(rate, tf.Variable):
        if rate.shape.rank != 0 or not rate.dtype.is_floating:
            raise UsageError(
                f"learning_rate is a variable of shape {rate.shape} and dtype "
                f"{rate.dtype.name}: it must be a float scalar"
            )
    elif isinstance(rate, str) or not _SMALLEST <= rate <= _LARGEST:
        raise UsageError(
            f"learning_rate is {rate}: it must be above 0, and a number that float32 "
            f"holds ({_SMALLEST:.2g} to {_LARGEST:.2g})"
        )


def _slot(variable: tf.Variable, slot: str) -> tf.Variable:
    name = f"{variable.name.split(':')[0]}/{slot}"
    zeros = tf.zeros(variable.shape, accumulation_dtype(variable))
    return tf.Variable(zeros, trainable=False, name=name)
