"""Batch normalization by mean and variance of the global batch, without padding.

    self.norm = BatchNorm(6)
    maps = self.norm(maps, batch, training)       # [B, H, W, 6] -> [B, H, W, 6]

Mean and variance are over the examples of all replicas that have a weight above 0, and
the gradient goes through them. So the weights and the moving averages do not depend on
the number of replicas or the amount of padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import all_reduce_sum, local_assign

_WEIGHT = "weight"


class BatchNorm(tf.Module):
    """Normalizes each channel over the examples of the global batch.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, with mean and variance of
    the batch in training, and their moving averages otherwise.

    Source: Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2. As
    in Keras, the moving variance is that of the batch, not the unbiased one.

    Args:
      channels: Size of the last axis.
      momentum: Share of the moving averages that a step keeps, in [0, 1).
      epsilon: Constant that is added to the variance, above 0.
      name: Name of the module and prefix of its variables' names.

    Attributes:
      gamma: Scale, float32 [channels], trained, initially 1.
      beta: Offset, float32 [channels], trained, initially 0.
      moving_mean: float32 [channels], not trained, initially 0.
      moving_variance: float32 [channels], not trained, initially 1.

    Raises:
      UsageError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        name: str = "batch_norm",
    ) -> None:
        super().__init__(name=name)
        if channels < 1 or not 0 <= momentum < 1 or not epsilon > 0:
            raise UsageError(
                f"channels is {channels}, momentum {momentum}, epsilon {epsilon}: they "
                "must be at least 1, in [0, 1), and above 0"
            )
        self.momentum, self.epsilon = momentum, epsilon
        self.gamma = tf.Variable(tf.ones([channels]), name=f"{name}/gamma")
        self.beta = tf.Variable(tf.zeros([channels]), name=f"{name}/beta")
        self.moving_mean = _state(tf.zeros([channels]), f"{name}/moving_mean")
        self.moving_variance = _state(tf.ones([channels]), f"{name}/moving_variance")

    def __call__(
        self, x: tf.Tensor, batch: Mapping[str, tf.Tensor], training: bool
    ) -> tf.Tensor:
        """Normalizes, and in training updates the moving averages.

        Args:
          x: Features, float [B, ..., channels].
          batch: Batch that x is from; its `weight` [B] is 0 for padding.
          training: Whether to normalize by mean and variance of this batch.

        Returns:
          Tensor of x's shape and dtype.

        Raises:
          UsageError: The batch has no `weight`, or x has another number of channels.
        """
        if x.shape[-1] != self.gamma.shape[0]:
            raise UsageError(
                f"{self.name} has {self.gamma.shape[0]} channels, but the input is of "
                f"shape {x.shape}"
            )
        if not training:
            mean, variance = self.moving_mean, self.moving_variance
        else:
            mean, variance = self._moments(tf.cast(x, tf.float32), batch)
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        shift = self.beta - mean * scale
        return x * tf.cast(scale, x.dtype) + tf.cast(shift, x.dtype)

    def _moments(
        self, x: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mean and variance of the global batch, [channels] each."""
        if _WEIGHT not in batch:
            raise UsageError(
                f"{self.name} needs the weights of the examples: call it with the "
                "batch that forward was given"
            )
        axes = list(range(x.shape.rank - 1))
        real = tf.cast(batch[_WEIGHT] > 0, tf.float32)
        real = tf.reshape(real, [-1] + [1] * (x.shape.rank - 1)) * tf.ones_like(
            x[..., :1]
        )
        count, total = all_reduce_sum(
            [tf.reduce_sum(real), tf.reduce_sum(x * real, axes)]
        )
        mean = tf.math.divide_no_nan(total, count)
        # A second pass, as mean(x^2) - mean(x)^2 would lose precision.
        (total,) = all_reduce_sum([tf.reduce_sum(real * (x - mean) ** 2, axes)])
        variance = tf.math.divide_no_nan(total, count)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            kept = self.momentum * moving.read_value()
            local_assign(moving, kept + (1 - self.momentum) * tf.stop_gradient(value))
        return mean, variance


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    # The aggregation says that all copies are equal: every replica assigns the same.
    return tf.Variable(
        value,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
