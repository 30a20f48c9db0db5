"""Dynamic loss scaling, for gradients in float16.

    scale = LossScale()
    gradients = tape.gradient(loss * scale.value(), variables)     # then divided by it
    going = scale.guard(finite, update)

Small gradients vanish in float16, so the loss is scaled up as far as they do not
overflow. Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section
3.2, with the factor found as the run goes.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from lenet_tf.parallel.collectives import local_handle

GROWTH_STEPS = 2000


class LossScale(tf.Module):
    """The factor, alike on every replica.

    Attributes:
      scale: float32 scalar; doubled after 2,000 good steps, halved by a bad one.
      good_steps: int64 scalar, since it changed last.
    """

    def __init__(self, start: float = 2.0**15) -> None:
        super().__init__(name="loss_scale")
        self.scale = tf.Variable(start, trainable=False, name="scale")
        self.good_steps = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="good_steps"
        )

    def value(self) -> tf.Tensor:
        """Returns the factor, float32 scalar."""
        return self.scale.read_value()

    def guard(self, finite: tf.Tensor, update: Callable[[], None]) -> tf.Tensor:
        """Calls `update` if the gradient is finite, and adapts the factor.

        Args:
          finite: whether it is, bool scalar, alike on all replicas.
          update: of the weights.

        Returns:
          Whether the run can go on: bool scalar, false when no factor helps.
        """
        scale, good = self.scale.read_value(), self.good_steps.read_value() + 1
        grows = good >= GROWTH_STEPS

        def updated() -> tuple[tf.Tensor, tf.Tensor]:
            update()
            return tf.where(grows, 2 * scale, scale), tf.where(
                grows, tf.zeros_like(good), good
            )

        def skipped() -> tuple[tf.Tensor, tf.Tensor]:
            return scale / 2, tf.zeros_like(good)

        scale, good = tf.cond(finite, updated, skipped)
        for variable, value in ((self.scale, scale), (self.good_steps, good)):
            tf.raw_ops.AssignVariableOp(resource=local_handle(variable), value=value)
        return scale >= 1.0
