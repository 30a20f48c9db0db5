"""Dynamic loss scaling, for gradients in float16.

    scale = LossScale()
    gradients = tape.gradient(loss * scale.value(), variables)    # then divided by it
    going = scale.guard(loss_is_finite, gradient_is_finite, update)

Small gradients vanish in float16, so the loss is multiplied by the largest factor that
does not make the gradients overflow. Source: Micikevicius et al., "Mixed precision
training", ICLR 2018, section 3.2, with a factor that is adapted in training.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from lenet_tf.optim.optimizer import assign

GROWTH_STEPS = 2000


class LossScale(tf.Module):
    """The factor of the loss, the same on every replica.

    Args:
      start: Factor at the first step.

    Attributes:
      scale: Factor, float32 scalar; doubled after 2,000 steps without an overflow,
        halved by an overflow.
      good_steps: Number of steps since the factor last changed, int64 scalar.
      skipped: Number of steps skipped in the whole run, int64 scalar. The number of
        updates, which Adam needs, is `step - skipped`.
    """

    def __init__(self, start: float = 2.0**15) -> None:
        super().__init__(name="loss_scale")
        self.scale = tf.Variable(start, trainable=False, name="scale")
        self.good_steps = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="good_steps"
        )
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped")

    def value(self) -> tf.Tensor:
        """Returns the factor, float32 scalar."""
        return self.scale.read_value()

    def guard(
        self,
        loss_finite: tf.Tensor,
        gradient_finite: tf.Tensor,
        update: Callable[[], None],
    ) -> tf.Tensor:
        """Calls `update` if loss and gradient are finite, and adapts the factor.

        If the loss itself is not finite, no factor helps: the step is skipped, and the
        run has to end. The two flags are the same on every replica.

        Args:
          loss_finite: Whether the loss is finite, bool scalar.
          gradient_finite: Whether every entry of the gradient is finite, bool scalar.
          update: Function that updates the weights.

        Returns:
          Whether the run can go on, bool scalar: the loss is finite, and the factor is
          at least 1.
        """
        scale, good = self.scale.read_value(), self.good_steps.read_value() + 1
        skipped = self.skipped.read_value()
        grows = good >= GROWTH_STEPS

        def updated() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            update()
            new_scale = tf.where(grows, 2 * scale, scale)
            return new_scale, tf.where(grows, tf.zeros_like(good), good), skipped

        def left_out() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            new_scale = tf.where(loss_finite, scale / 2, scale)
            return new_scale, tf.zeros_like(good), skipped + 1

        finite = loss_finite & gradient_finite
        scale, good, skipped = tf.cond(finite, updated, left_out)
        assign(self.scale, scale)
        assign(self.good_steps, good)
        assign(self.skipped, skipped)
        return loss_finite & (scale >= 1.0)
