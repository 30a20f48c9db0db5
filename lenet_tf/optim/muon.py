"""Muon: momentum whose step in each matrix is made orthogonal; Adam for the biases.

optimizer = Muon(1e-3, momentum=0.95)
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.adam import Adam
from lenet_tf.optim.optimizer import (
    OPTIMIZERS,
    LearningRate,
    Optimizer,
    assign,
    check_weight_decay,
    is_matrix,
)


def orthogonalized(matrix: tf.Tensor, iterations: int = 5) -> tf.Tensor:
    """Brings all singular values of a matrix near 1, by Newton-Schulz iterations.

    X <- a * X + b * (X X') X + c * (X X')^2 X, from the matrix divided by its norm.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks",
    2024, https://kellerjordan.github.io/posts/muon/. With its coefficients a few
    iterations are enough, but the singular values end between 0.7 and 1.2, not at 1.

    Args:
      matrix: Matrix of static shape, float [N, M].
      iterations: Number of iterations.

    Returns:
      The matrix, of the same shape and dtype.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    rows, columns = matrix.shape
    x = tf.transpose(matrix) if rows > columns else matrix  # for the smaller X X'
    x = x / (tf.norm(x) + 1e-7)
    for _ in range(iterations):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if rows > columns else x


def muon_update(
    parameter: tf.Tensor,
    velocity: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float = 0.95,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of Muon for a matrix, or for a kernel as the matrix [-1, outputs].

    u <- momentum * u + g; O <- orthogonalized(g + momentum * u);
    w <- w - rate * (0.2 * sqrt(max(N, M)) * O + decay * w), for a matrix [N, M].

    Source: Jordan et al., see `orthogonalized`, with Nesterov's momentum. The decay and
    the factor of O, which makes steps about as large as Adam's, are from Liu et al.,
    "Muon is scalable for LLM training", 2025, section 2.2.

    Args:
      parameter: Parameter w before the step, float of two or more static axes; the last
        one counts the outputs.
      velocity: Velocity u before the step, of the parameter's shape.
      gradient: Gradient g at w, of the parameter's shape.
      learning_rate: Learning rate.
      weight_decay: Factor of the decay.
      momentum: Share of the velocity that a step keeps.

    Returns:
      The new parameter and velocity.
    """
    velocity = momentum * velocity + gradient
    ahead = gradient + momentum * velocity
    matrix = tf.reshape(ahead, [-1, ahead.shape[-1]])
    scale = 0.2 * max(matrix.shape) ** 0.5
    direction = tf.reshape(scale * orthogonalized(matrix), ahead.shape)
    move = learning_rate * (direction + weight_decay * parameter)
    return parameter - move, velocity


@OPTIMIZERS.register("muon")
class Muon(Optimizer):
    """Muon for variables of two or more axes, see `muon_update`; Adam for all others.

    The kernel of a convolution [k, l, inputs, outputs] counts as a matrix
    [k * l * inputs, outputs]; Keras updates such kernels with Adam. Variables that Adam
    updates do not decay.

    The authors use Adam for embeddings and the output layer too. Put those into another
    update:

        updates = {
            "hidden": Update(model.hidden, Muon(1e-3)),
            "output": Update(model.output, AdamW(1e-3)),
        }

    Args:
      learning_rate: Learning rate of both rules; see `Optimizer`.
      weight_decay: Factor of the decay, at least 0.
      momentum: Share of the velocity that a step keeps, in [0, 1).
      beta_1: Decay of Adam's first moment, in [0, 1).
      beta_2: Decay of Adam's second moment, in [0, 1).
      epsilon: Constant that Adam adds to the root of the second moment, above 0.

    Attributes:
      adam: Adam for the variables of fewer than two axes, in their order.

    Raises:
      UsageError: A value is out of its range.
    """

    slot_names = ("velocity",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        weight_decay: float = 4e-3,
        momentum: float = 0.95,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, "muon")
        check_weight_decay(weight_decay)
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum is {momentum}: it must be in [0, 1)")
        self.weight_decay, self.momentum = weight_decay, momentum
        self.adam = Adam(learning_rate, beta_1, beta_2, epsilon)

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """See `Optimizer.build`; `slots` are those of the matrices, in their order."""
        super().build([v for v in variables if is_matrix(v)])
        self.adam.build([v for v in variables if not is_matrix(v)])

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """See `Optimizer.apply`."""
        rate = self.rate(step)
        pairs = list(zip(gradients, variables, strict=True))
        matrices = [pair for pair in pairs if is_matrix(pair[1])]
        for (gradient, variable), velocity in zip(
            matrices, self.slots["velocity"], strict=True
        ):
            dtype = velocity.dtype
            new, moved = muon_update(
                tf.cast(variable.read_value(), dtype),
                velocity.read_value(),
                tf.cast(gradient, dtype),
                tf.cast(rate, dtype),
                self.weight_decay,
                self.momentum,
            )
            assign(variable, new)
            assign(velocity, moved)
        others = [pair for pair in pairs if not is_matrix(pair[1])]
        self.adam.apply([g for g, _ in others], [v for _, v in others], step)
