"""LAMB: Adam whose step in each variable is in proportion to the variable's norm.

optimizer = LAMB(2e-3, weight_decay=0.01)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.adam import AdamState
from lenet_tf.optim.optimizer import (
    OPTIMIZERS,
    LearningRate,
    Optimizer,
    assign,
    check_weight_decay,
    is_matrix,
)


def lamb_update(
    state: AdamState,
    gradient: tf.Tensor,
    step: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
) -> AdamState:
    """One step of LAMB.

    r <- m^ / (sqrt(v^) + epsilon) + decay * w; w <- w - rate * |w| / |r| * r, with the
    bias-corrected moments m^ and v^ of Adam. Where |w| or |r| is 0 their ratio is 1.

    Source: You et al., "Large batch optimization for deep learning: training BERT in
    76 minutes", ICLR 2020, algorithm 2, with the identity for its function phi.

    Args:
      state: Parameter w and moments before the step, float of any shape.
      gradient: Gradient at the parameter, of its shape.
      step: Number of steps that were taken before this one.
      learning_rate: Learning rate, the norm of the step relative to the parameter's.
      weight_decay: Factor of the decay.
      beta_1: Decay of the first moment.
      beta_2: Decay of the second moment.
      epsilon: Constant that is added to the root of the second moment.

    Returns:
      The state after the step.
    """
    t = step + 1
    m = beta_1 * state.m + (1 - beta_1) * gradient
    v = beta_2 * state.v + (1 - beta_2) * gradient**2
    m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
    r = m_hat / (v_hat**0.5 + epsilon) + weight_decay * state.parameter
    norm, r_norm = tf.norm(state.parameter), tf.norm(r)
    both = (norm > 0) & (r_norm > 0)
    trust = tf.where(both, norm / r_norm, tf.ones_like(norm))
    return AdamState(state.parameter - learning_rate * trust * r, m, v)


@OPTIMIZERS.register("lamb")
class LAMB(Optimizer):
    """LAMB; see `lamb_update`.

    Only variables of two or more axes (matrices, kernels) decay, not biases. The decay
    is part of r, so it changes |r|, as in the paper. Keras instead subtracts it from
    the weights before the step. Without decay both are the same, except for the default
    of epsilon, which is 1e-7 in Keras.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      weight_decay: Factor of the decay, at least 0.
      beta_1: Decay of the first moment, in [0, 1).
      beta_2: Decay of the second moment, in [0, 1).
      epsilon: Constant that is added to the root of the second moment, above 0.

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("m", "v")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        weight_decay: float = 4e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(learning_rate, "lamb")
        check_weight_decay(weight_decay)
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1 and epsilon > 0):
            raise UsageError(
                f"beta_1 is {beta_1}, beta_2 is {beta_2}, epsilon is {epsilon}: the "
                "betas must be in [0, 1) and epsilon above 0"
            )
        self.weight_decay = weight_decay
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        for gradient, variable, m, v in zip(
            gradients, variables, self.slots["m"], self.slots["v"], strict=True
        ):
            parameter = tf.cast(variable.read_value(), m.dtype)
            state = lamb_update(
                AdamState(parameter, m.read_value(), v.read_value()),
                tf.cast(gradient, m.dtype),
                tf.cast(step, m.dtype),
                tf.cast(rate, m.dtype),
                self.weight_decay if is_matrix(variable) else 0.0,
                self.beta_1,
                self.beta_2,
                self.epsilon,
            )
            for target, value in zip((variable, m, v), state, strict=True):
                assign(target, value)
