"""RMSprop: gradient descent, divided by the gradient's running root mean square.

optimizer = RMSprop(1e-3, rho=0.9)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.optimizer import OPTIMIZERS, LearningRate, Optimizer, assign


def rmsprop_update(
    parameter: tf.Tensor,
    mean_square: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: float,
    rho: float = 0.9,
    epsilon: float = 1e-7,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of RMSprop.

    s <- rho * s + (1 - rho) * g^2; w <- w - rate * g / sqrt(s + epsilon).

    Source: Tieleman and Hinton, "Lecture 6.5: rmsprop", Coursera, 2012; epsilon is
    added under the root, as Keras does.

    Args:
      parameter: Parameter w before the step, float of any shape.
      mean_square: Mean square s before the step, of the parameter's shape.
      gradient: Gradient g, of the parameter's shape.
      learning_rate: Learning rate.
      rho: Share of the mean square that a step keeps.
      epsilon: Constant that is added to the mean square.

    Returns:
      The new parameter and mean square.
    """
    mean_square = rho * mean_square + (1 - rho) * gradient**2
    move = learning_rate * gradient * tf.math.rsqrt(mean_square + epsilon)
    return parameter - move, mean_square


@OPTIMIZERS.register("rmsprop")
class RMSprop(Optimizer):
    """RMSprop; see `rmsprop_update`.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      rho: Share of the mean square that a step keeps, in [0, 1).
      epsilon: Constant that is added to the mean square, above 0.

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("mean_square",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, "rmsprop")
        if not (0 <= rho < 1 and epsilon > 0):
            raise UsageError(
                f"rho is {rho} and epsilon is {epsilon}: rho must be in [0, 1), and "
                "epsilon above 0"
            )
        self.rho, self.epsilon = rho, epsilon

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        for gradient, variable, mean_square in zip(
            gradients, variables, self.slots["mean_square"], strict=True
        ):
            dtype = mean_square.dtype
            new, mean = rmsprop_update(
                tf.cast(variable.read_value(), dtype),
                mean_square.read_value(),
                tf.cast(gradient, dtype),
                tf.cast(rate, dtype),
                self.rho,
                self.epsilon,
            )
            assign(variable, new)
            assign(mean_square, mean)
