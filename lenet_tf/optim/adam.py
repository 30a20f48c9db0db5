"""Adam, and Adam with decoupled weight decay.

optimizer = Adam(1e-3)
optimizer = AdamW(1e-3, weight_decay=0.01)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.optimizer import (
    OPTIMIZERS,
    LearningRate,
    Optimizer,
    assign,
    check_weight_decay,
    is_matrix,
)
from lenet_tf.parallel.collectives import local_assign_add, local_handle


class AdamState(NamedTuple):
    """A parameter with its first and second moment, all of one shape."""

    parameter: tf.Tensor
    m: tf.Tensor
    v: tf.Tensor


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
      state: Parameter and moments before the step, float of any shape.
      gradient: Gradient at the parameter, of its shape.
      step: Number of steps that were taken before this one.
      learning_rate: Learning rate, alpha in the paper.
      beta_1: Decay of the first moment.
      beta_2: Decay of the second moment.
      epsilon: Constant that is added to the root of the second moment.

    Returns:
      The state after the step.
    """
    t = step + 1
    m = beta_1 * state.m + (1 - beta_1) * gradient
    v = beta_2 * state.v + (1 - beta_2) * gradient**2
    rate = learning_rate * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
    return AdamState(state.parameter - rate * m / (v**0.5 + epsilon), m, v)


@OPTIMIZERS.register("adam")
class Adam(Optimizer):
    """Adam; see `adam_update`.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Constant that is added to the root of the second moment, above 0.

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("m", "v")
    weight_decay = 0.0  # Only AdamW has another.

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
        # One for each dtype: float32 powers are too inexact for float64 variables.
        times = {m.dtype: tf.cast(step + 1, m.dtype) for m in self.slots["m"]}
        powers = {d: (self.beta_1**t, self.beta_2**t) for d, t in times.items()}
        for gradient, variable, m, v in zip(
            gradients, variables, self.slots["m"], self.slots["v"], strict=True
        ):
            gradient, lr = tf.cast(gradient, m.dtype), tf.cast(rate, m.dtype)
            decays = self.weight_decay > 0 and is_matrix(variable)
            if variable.dtype == m.dtype:
                if decays:
                    decay = lr * self.weight_decay * variable.read_value()
                    local_assign_add(variable, -decay)
                beta_1_power, beta_2_power = powers[m.dtype]
                tf.raw_ops.ResourceApplyAdam(
                    var=local_handle(variable),
                    m=local_handle(m),
                    v=local_handle(v),
                    beta1_power=beta_1_power,
                    beta2_power=beta_2_power,
                    lr=lr,
                    beta1=self.beta_1,
                    beta2=self.beta_2,
                    epsilon=self.epsilon,
                    grad=gradient,
                )
                continue
            # Rounded to 16 bits only once, after decay and step: by itself a decay of a
            # thousandth would be rounded away.
            parameter = tf.cast(variable.read_value(), m.dtype)
            if decays:
                parameter -= lr * self.weight_decay * parameter
            state = adam_update(
                AdamState(parameter, m.read_value(), v.read_value()),
                gradient,
                tf.cast(step, m.dtype),
                lr,
                self.beta_1,
                self.beta_2,
                self.epsilon,
            )
            for target, value in zip((variable, m, v), state, strict=True):
                assign(target, value)


@OPTIMIZERS.register("adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay: w <- w - rate * decay * w, before Adam's step.

    Variables of two or more axes (matrices, kernels) decay; biases do not.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019,
    algorithm 2, with the decay multiplied by the learning rate, as in Keras.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      weight_decay: Factor of the decay, at least 0.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Constant that is added to the root of the second moment, above 0.

    Raises:
      UsageError: A value is out of its range.
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
        check_weight_decay(weight_decay)
        self.weight_decay = weight_decay
