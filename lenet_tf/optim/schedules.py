"""Learning rates that change: plain callables from the step to the rate.

    optimizer = Adam(warmup_cosine(peak=6e-3, steps=10_000, warmup=1_000))

A schedule takes the step (int64 scalar tensor, from 0: how many updates were made) and
returns a float32 scalar tensor. Beyond its last step it stays at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError

Schedule = Callable[[tf.Tensor], tf.Tensor]


def constant(rate: float) -> Schedule:
    """Stays at `rate`."""
    return lambda step: tf.constant(rate, tf.float32)


def warmup_cosine(
    peak: float, steps: int, warmup: int = 0, end: float = 0.0
) -> Schedule:
    """Rises linearly to `peak` over `warmup` steps, then falls to `end` as a cosine.

    The first step has peak / (warmup + 1), the last of `steps` nearly `end`.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5 without restarts.

    Args:
      peak: the highest rate.
      steps: of the whole schedule.
      warmup: of them, how many rise.
      end: the rate at the end.
    """
    _check(steps, warmup)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = peak * (step + 1) / (warmup + 1)
        fallen = tf.clip_by_value((step - warmup) / (steps - warmup), 0.0, 1.0)
        falling = end + (peak - end) * 0.5 * (1 + tf.cos(math.pi * fallen))
        return tf.where(step < warmup, rising, falling)

    return schedule


def one_cycle(
    peak: float,
    steps: int,
    rise: float = 0.3,
    start: float = 1 / 25,
    end: float = 1e-4,
) -> Schedule:
    """Goes up to `peak` and down again, both as half a cosine.

    Source: Smith and Topin, "Super-convergence", 2018, with cosines for its lines.

    Args:
      peak: the highest rate.
      steps: of the whole schedule.
      rise: the share of the steps that go up.
      start: the first rate, as a share of the peak.
      end: the last rate, as a share of the peak.
    """
    _check(steps, 0)
    up = rise * steps

    def half_cosine(a: float, b: float, share: tf.Tensor) -> tf.Tensor:
        share = tf.clip_by_value(share, 0.0, 1.0)
        return a + (b - a) * 0.5 * (1 - tf.cos(math.pi * share))

    def schedule(step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = half_cosine(start * peak, peak, step / max(up, 1e-9))
        falling = half_cosine(peak, end * peak, (step - up) / (steps - up))
        return tf.where(step < up, rising, falling)

    return schedule


def piecewise(boundaries: Sequence[int], rates: Sequence[float]) -> Schedule:
    """Takes rates[i] from step boundaries[i - 1] on; one rate more than boundaries."""
    if len(rates) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise UsageError(
            f"boundaries are {list(boundaries)} and rates {list(rates)}: give rising "
            "boundaries, and one rate more"
        )

    def schedule(step: tf.Tensor) -> tf.Tensor:
        passed = tf.constant(list(boundaries), tf.int64) <= tf.cast(step, tf.int64)
        index = tf.reduce_sum(tf.cast(passed, tf.int32))
        return tf.gather(tf.constant(list(rates), tf.float32), index)

    return schedule


def exponential(
    start: float, steps: int, factor: float, staircase: bool = False
) -> Schedule:
    """Is multiplied by `factor` every `steps` steps; at once if `staircase`."""
    _check(steps, 0)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        times = tf.cast(step, tf.float32) / steps
        return start * factor ** (tf.floor(times) if staircase else times)

    return schedule


def polynomial(
    start: float, steps: int, end: float = 0.0, power: float = 1.0
) -> Schedule:
    """Goes from `start` to `end` over `steps` as (1 - step / steps) ** power."""
    _check(steps, 0)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        left = 1 - tf.minimum(tf.cast(step, tf.float32) / steps, 1.0)
        return end + (start - end) * left**power

    return schedule


def _check(steps: int, warmup: int) -> None:
    if steps < 1 or not 0 <= warmup < steps:
        raise UsageError(
            f"steps is {steps} and warmup {warmup}: give at least 1 step, and fewer of "
            "warm-up"
        )
