"""Optimizers: a pure update rule, and a `tf.Module` that owns the slots.

    optimizer = Adam(learning_rate=1e-3)
    optimizer.build(model.trainable_variables)        # slots exist before step 1
    optimizer.apply(gradients, model.trainable_variables, step)

The rules (`sgd_update`, `adam_update`) are the textbook in plain operations; the
modules apply the same arithmetic through TensorFlow's fused kernels, and the tests hold
the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import local_assign_add, local_handle

LearningRate = float | Callable[[tf.Tensor], tf.Tensor]


class AdamState(NamedTuple):
    """A parameter with its first and second moment, all of one shape."""

    parameter: tf.Tensor
    m: tf.Tensor
    v: tf.Tensor


def sgd_update(
    parameter: tf.Tensor,
    velocity: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: float,
    momentum: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient descent with momentum: u <- momentum * u - rate * g; w <- w + u.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 1 and 2.

    Returns:
      The new parameter and velocity, of the parameter's shape.
    """
    velocity = momentum * velocity - learning_rate * gradient
    return parameter + velocity, velocity


def adam_update(
    state: AdamState,
    gradient: tf.Tensor,
    step: int,
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> AdamState:
    """One step of Adam.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015,
    algorithm 1 in the order of operations given at the end of section 2 (epsilon is
    that section's epsilon hat).

    Args:
      state: parameter and moments before the step.
      gradient: of the parameter's shape.
      step: how many steps were taken before this one, from 0.
      learning_rate: the step size alpha.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      epsilon: added to the root of the second moment.

    Returns:
      The state after the step.
    """
    t = step + 1
    m = beta_1 * state.m + (1 - beta_1) * gradient
    v = beta_2 * state.v + (1 - beta_2) * gradient**2
    rate = learning_rate * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
    return AdamState(state.parameter - rate * m / (v**0.5 + epsilon), m, v)


class Optimizer(tf.Module):
    """What SGD and Adam share: the learning rate and the slots.

    Args:
      learning_rate: a number, or a function from the step (int64 scalar, from 0) to a
        float32 scalar.
      name: of the module.

    Attributes:
      slots: name -> one variable a parameter, in the parameters' order.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, learning_rate: LearningRate, name: str) -> None:
        super().__init__(name=name)
        if not callable(learning_rate) and not learning_rate > 0:
            raise UsageError(f"learning_rate is {learning_rate}: it must be above 0")
        self.learning_rate = learning_rate
        self.slots: dict[str, list[tf.Variable]] = {}

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the slots, zeros of the variables' shapes; once."""
        if self.slots:
            raise UsageError(f"{self.name} has its slots already: make another one")
        self.slots = {
            slot: [_slot(variable, slot) for variable in variables]
            for slot in self.slot_names
        }

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate (float32 scalar) at a step, from 0."""
        if callable(self.learning_rate):
            return tf.cast(self.learning_rate(step), tf.float32)
        return tf.constant(self.learning_rate, tf.float32)

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """Updates this replica's copy of the variables and slots in place.

        Args:
          gradients: of the global mean loss, the same on every replica.
          variables: those given to `build`, in that order.
          step: int64 scalar, how many updates were made before.
        """
        raise TypeError(f"{type(self).__name__} has no update rule: define apply()")


class SGD(Optimizer):
    """Gradient descent with momentum, as `sgd_update`."""

    slot_names = ("velocity",)

    def __init__(
        self, learning_rate: LearningRate = 0.01, momentum: float = 0.0
    ) -> None:
        super().__init__(learning_rate, "sgd")
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum is {momentum}: it must be in [0, 1)")
        self.momentum = momentum

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        slots = self.slots["velocity"]
        for gradient, variable, slot in zip(gradients, variables, slots, strict=True):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=local_handle(variable),
                accum=local_handle(slot),
                lr=rate,
                grad=gradient,
                momentum=self.momentum,
            )


class Adam(Optimizer):
    """Adam, as `adam_update`."""

    slot_names = ("m", "v")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, "adam")
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1 and epsilon > 0):
            raise UsageError(
                f"beta_1 is {beta_1}, beta_2 is {beta_2}, epsilon is {epsilon}: the "
                "betas must be in [0, 1) and epsilon above 0"
            )
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        t = tf.cast(step + 1, tf.float32)
        beta_1_power, beta_2_power = self.beta_1**t, self.beta_2**t
        for gradient, variable, m, v in zip(
            gradients, variables, self.slots["m"], self.slots["v"], strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=local_handle(variable),
                m=local_handle(m),
                v=local_handle(v),
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )


class AdamW(Adam):
    """Adam with decoupled weight decay: w <- w - rate * decay * w, before Adam's step.

    Matrices and kernels decay; biases, of one axis, do not.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019,
    algorithm 2.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        weight_decay: float = 4e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon)
        if not weight_decay >= 0:
            raise UsageError(f"weight_decay is {weight_decay}: it must be at least 0")
        self.weight_decay = weight_decay

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        share = self.rate(step) * self.weight_decay
        for variable in variables:
            if variable.shape.rank > 1:
                decay = share * variable.read_value()
                local_assign_add(variable, -decay)
        super().apply(gradients, variables, step)


OPTIMIZERS = ("adam", "adamw", "sgd")


def _slot(variable: tf.Variable, slot: str) -> tf.Variable:
    name = f"{variable.name.split(':')[0]}/{slot}"
    return tf.Variable(tf.zeros_like(variable), trainable=False, name=name)
