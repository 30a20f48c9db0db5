"""Lion: steps of the same size in every entry, by the sign of a mean gradient.

optimizer = Lion(1e-4, weight_decay=0.01)
"""

from __future__ import annotations

from collections.abc import Sequence

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


def lion_update(
    parameter: tf.Tensor,
    m: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: float,
    weight_decay: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of Lion.

    c <- beta_1 * m + (1 - beta_1) * g; w <- w - rate * (sign(c) + decay * w);
    m <- beta_2 * m + (1 - beta_2) * g.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023,
    algorithm 2.

    Args:
      parameter: Parameter w before the step, float of any shape.
      m: Mean m of the gradients before the step, of the parameter's shape.
      gradient: Gradient g at w, of the parameter's shape.
      learning_rate: Learning rate, the distance that every entry moves.
      weight_decay: Factor of the decay.
      beta_1: Share of the mean in the direction of the step.
      beta_2: Share of the mean that a step keeps.

    Returns:
      The new parameter and mean.
    """
    direction = tf.sign(beta_1 * m + (1 - beta_1) * gradient)
    move = learning_rate * (direction + weight_decay * parameter)
    return parameter - move, beta_2 * m + (1 - beta_2) * gradient


@OPTIMIZERS.register("lion")
class Lion(Optimizer):
    """Lion; see `lion_update`.

    Every entry moves by the learning rate in each step, which is more than with Adam.
    The paper advises a learning rate 3 to 10 times smaller than that for AdamW, and a
    decay larger by the same factor.

    Only variables of two or more axes (matrices, kernels) decay, not biases. In Keras
    all variables decay.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      weight_decay: Factor of the decay, at least 0.
      beta_1: Share of the mean gradient in the direction of the step, in [0, 1).
      beta_2: Share of the mean gradient that a step keeps, in [0, 1).

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("m",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-4,
        weight_decay: float = 4e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
    ) -> None:
        super().__init__(learning_rate, "lion")
        check_weight_decay(weight_decay)
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise UsageError(
                f"beta_1 is {beta_1} and beta_2 is {beta_2}: they must be in [0, 1)"
            )
        self.weight_decay, self.beta_1, self.beta_2 = weight_decay, beta_1, beta_2

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        for gradient, variable, m in zip(
            gradients, variables, self.slots["m"], strict=True
        ):
            new, mean = lion_update(
                tf.cast(variable.read_value(), m.dtype),
                m.read_value(),
                tf.cast(gradient, m.dtype),
                tf.cast(rate, m.dtype),
                self.weight_decay if is_matrix(variable) else 0.0,
                self.beta_1,
                self.beta_2,
            )
            assign(variable, new)
            assign(m, mean)
