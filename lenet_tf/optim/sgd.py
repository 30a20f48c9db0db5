"""Gradient descent with momentum.

optimizer = SGD(0.1, momentum=0.9, nesterov=True)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.optimizer import OPTIMIZERS, LearningRate, Optimizer, assign
from lenet_tf.parallel.collectives import local_handle


def sgd_update(
    parameter: tf.Tensor,
    velocity: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: float,
    momentum: float,
    nesterov: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of gradient descent with momentum.

    u <- momentum * u - rate * g; w <- w + u, or with Nesterov's momentum
    w <- w + momentum * u - rate * g.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 1 and 2. Nesterov's is equations 3 and 4 with their
    w + momentum * u as the parameter: Bengio, Boulanger-Lewandowski and Pascanu,
    "Advances in optimizing recurrent networks", ICASSP 2013, section 3.5.

    Args:
      parameter: Parameter w before the step, float of any shape.
      velocity: Velocity u before the step, of the parameter's shape.
      gradient: Gradient g at w, of the parameter's shape.
      learning_rate: Learning rate.
      momentum: Share of the velocity that a step keeps.
      nesterov: Whether to use Nesterov's momentum.

    Returns:
      The new parameter and velocity.
    """
    velocity = momentum * velocity - learning_rate * gradient
    if nesterov:
        return parameter + momentum * velocity - learning_rate * gradient, velocity
    return parameter + velocity, velocity


@OPTIMIZERS.register("sgd")
class SGD(Optimizer):
    """Gradient descent with momentum; see `sgd_update`.

    Args:
      learning_rate: Learning rate; see `Optimizer`.
      momentum: Share of the velocity that a step keeps, in [0, 1).
      nesterov: Whether to use Nesterov's momentum.

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("velocity",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(learning_rate, "sgd")
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum is {momentum}: it must be in [0, 1)")
        self.momentum, self.nesterov = momentum, nesterov

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        for gradient, variable, velocity in zip(
            gradients, variables, self.slots["velocity"], strict=True
        ):
            dtype = velocity.dtype
            gradient, lr = tf.cast(gradient, dtype), tf.cast(rate, dtype)
            if variable.dtype == dtype:
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=local_handle(variable),
                    accum=local_handle(velocity),
                    lr=lr,
                    grad=gradient,
                    momentum=self.momentum,
                    use_nesterov=self.nesterov,
                )
                continue
            parameter = tf.cast(variable.read_value(), dtype)
            new, moved = sgd_update(
                parameter,
                velocity.read_value(),
                gradient,
                lr,
                self.momentum,
                self.nesterov,
            )
            assign(variable, new)
            assign(velocity, moved)
