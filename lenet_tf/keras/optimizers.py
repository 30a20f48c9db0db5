"""An optimizer of Keras with the methods that an `Update` needs.

    optimizer = lenet_tf.keras.optimizer(keras.optimizers.Lion(1e-4))
    trainer = lenet_tf.Trainer(model, optimizer, forward, strategy=strategy)

Gradients are those of the whole global batch, and every replica makes the same update
of its own copies. So Keras's optimizer need not know about replicas: it computes new
values from old ones (`stateless_apply`), and the new values are then assigned.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.optimizers.base_optimizer import BaseOptimizer

from lenet_tf.errors import UsageError
from lenet_tf.keras.variables import keras_variable
from lenet_tf.optim.optimizer import assign

# Option -> what to do instead. Keras would do these outside of `stateless_apply`.
_REFUSED = {
    "use_ema": "give the Trainer ema=0.99",
    "gradient_accumulation_steps": "give the Trainer micro_batches",
    "loss_scale_factor": "give the Trainer loss_scaling=True",
}
_REFUSED_KINDS = {
    "MultiOptimizer": "holds several: give the Trainer a dict, name -> lenet_tf.Update",
    "ScheduleFreeAdamW": (
        "reads its momentum after changing it on TensorFlow, so it does not compute "
        "its formula: use AdamW"
    ),
}


def optimizer(keras_optimizer: keras.optimizers.Optimizer) -> KerasOptimizer:
    """Makes an optimizer for a `Trainer` or `Update` from an optimizer of Keras.

    Args:
      keras_optimizer: Optimizer that has not been used yet.

    Raises:
      UsageError: It is not an optimizer of Keras, has its slots already, or has an
        option that does not work here.
    """
    return KerasOptimizer(keras_optimizer)


class KerasOptimizer(tf.Module):
    """An optimizer of Keras; its options mean what they mean in Keras.

    Set the learning rate at any time by `keras_optimizer.learning_rate = 0.01`. It is
    in the checkpoints. A schedule gets the number of updates from the run.

    Args:
      keras_optimizer: See `optimizer`.

    Attributes:
      keras_optimizer: As given.
      learning_rate: Variable that holds the learning rate; None if it is a schedule.
      slots: Variables of the optimizer, in Keras's order.
    """

    keras_optimizer: keras.optimizers.Optimizer

    def __init__(self, keras_optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(name="keras_optimizer")
        _check(keras_optimizer)
        kind = type(keras_optimizer)
        # Puts the methods of `_OfOneReplica` before those of TFOptimizer, and after
        # those of the optimizer itself.
        keras_optimizer.__class__ = type(
            kind.__name__, (kind, _OfOneReplica), {"__module__": kind.__module__}
        )
        # Not tracked, so that it adds no keys to checkpoints.
        object.__setattr__(self, "keras_optimizer", keras_optimizer)
        self.learning_rate: tf.Variable | None = None
        self.slots: list[tf.Variable] = []

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the slots; see `lenet_tf.optim.Optimizer.build`."""
        if self.keras_optimizer.built:
            raise UsageError(
                f"{self.keras_optimizer.name} has its slots already: make another one"
            )
        if (
            type(self.keras_optimizer).__name__ == "Muon"
            and tf.distribute.get_strategy().num_replicas_in_sync > 1
        ):
            raise UsageError(
                "Muon multiplies matrices, and the last bits of products differ "
                "between devices, so the replicas would drift apart: train on one"
            )
        held = [keras_variable(variable) for variable in variables]
        self.keras_optimizer.build(held)
        for variable in held:
            variable.kept_in_bounds = True
        rate = self.keras_optimizer.learning_rate
        if any(rate is variable for variable in self.keras_optimizer.variables):
            self.learning_rate = rate.value  # not of a schedule
        self.slots = [v.value for v in self._slots()]

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """Updates this replica's copies; see `lenet_tf.optim.Optimizer.apply`."""
        own = self.keras_optimizer.variables
        before = [
            step if v is self.keras_optimizer.iterations else v.value.read_value()
            for v in own
        ]
        weights = [variable.read_value() for variable in variables]
        weights, after = self.keras_optimizer.stateless_apply(
            before, list(gradients), weights
        )
        for variable, value in zip(variables, weights, strict=True):
            assign(variable, value)
        slots = {id(variable) for variable in self._slots()}
        for variable, old, new in zip(own, before, after, strict=True):
            if id(variable) in slots and new is not old:
                assign(variable.value, new)

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float32 scalar, at a step (int64 scalar)."""
        if self.learning_rate is not None:
            return tf.cast(self.learning_rate, tf.float32)
        return tf.cast(self.keras_optimizer._learning_rate(step), tf.float32)

    def _slots(self) -> list[keras.Variable]:
        others = (self.keras_optimizer.iterations, self.keras_optimizer.learning_rate)
        return [
            v for v in self.keras_optimizer.variables if not any(v is o for o in others)
        ]

    def __deepcopy__(self, memo: dict[int, object]) -> tf.Module:
        # For a checkpoint that is written in the background: the variables alone.
        twin = tf.Module(name=self.name)
        twin.learning_rate = copy.deepcopy(self.learning_rate, memo)
        twin.slots = copy.deepcopy(self.slots, memo)
        return twin


class _OfOneReplica(TFOptimizer):
    """The methods that Keras has for all backends, instead of those for TensorFlow.

    Those for TensorFlow would add up the gradients of all replicas once more.
    """

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    add_variable_from_reference = BaseOptimizer.add_variable_from_reference
    stateless_apply = BaseOptimizer.stateless_apply
    _apply_weight_decay = BaseOptimizer._apply_weight_decay
    _backend_update_step = BaseOptimizer._backend_update_step

    def _var_key(self, variable: keras.Variable) -> str:
        # As in TFOptimizer, but not by `value`, which is a tensor in stateless_apply.
        return getattr(variable, "_value", variable)._unique_id

    @property
    def learning_rate(self) -> keras.Variable | tf.Tensor:
        return BaseOptimizer.learning_rate.fget(self)

    @learning_rate.setter
    def learning_rate(self, value: object) -> None:
        if self.built and callable(value):
            raise UsageError(
                f"the learning_rate of {self.name} is set to {value!r}, which the "
                "traced step would not see: give the optimizer its schedule at first"
            )
        BaseOptimizer.learning_rate.fset(self, value)


def _check(keras_optimizer: keras.optimizers.Optimizer) -> None:
    """Raises UsageError for an optimizer that does not work here."""
    kind = type(keras_optimizer).__name__
    if not isinstance(keras_optimizer, keras.optimizers.Optimizer):
        raise UsageError(
            f"optimizer() is given a {kind}: give one of keras.optimizers, such as "
            "keras.optimizers.Adam(1e-3)"
        )
    if isinstance(keras_optimizer, keras.optimizers.LossScaleOptimizer):
        raise UsageError(
            f"{kind} scales a loss that it never sees here: give its inner optimizer, "
            "and the Trainer loss_scaling=True"
        )
    if kind in _REFUSED_KINDS:
        raise UsageError(f"{kind} {_REFUSED_KINDS[kind]}")
    if keras_optimizer.built:
        raise UsageError(
            f"{keras_optimizer.name} has its slots already: make another one"
        )
    for option, instead in _REFUSED.items():
        value = getattr(keras_optimizer, option, None)
        if value:
            raise UsageError(f"{option} of {kind} is {value}: {instead}")
