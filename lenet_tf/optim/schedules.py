"""Learning-rate schedules: functions from the step to the learning rate.

    optimizer = Adam(warmup_cosine(peak=6e-3, steps=10_000, warmup=1_000))
    schedule = SCHEDULES.make("cosine", 6e-3, 10_000, settings={"warmup": 0.1})

A schedule takes the step (int64 scalar tensor: the number of updates made before, from
0) and returns a float32 scalar tensor. After its end it stays at its last rate.

The public functions take numbers of steps. The entries of `SCHEDULES`, which settings
choose by name, take the highest rate, the number of steps, and shares of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.registry import Registry

Schedule = Callable[[tf.Tensor], tf.Tensor]

SCHEDULES: Registry[Schedule] = Registry("schedule", positional=2)

_LARGEST = float(np.finfo(np.float32).max)


def constant(rate: float) -> Schedule:
    """Keeps the learning rate at `rate` for all steps."""
    _check(rate)
    return lambda step: tf.constant(rate, tf.float32)


@SCHEDULES.register("constant")
def _constant(peak_rate: float, steps: int) -> Schedule:
    return constant(peak_rate)


def warmup_cosine(
    peak: float, steps: int, warmup: int = 0, end: float = 0.0
) -> Schedule:
    """Rises linearly to `peak` in `warmup` steps, then falls to `end` as half a cosine.

    The first step has peak / (warmup + 1), the last of `steps` nearly `end`.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5 without restarts.

    Args:
      peak: Highest rate.
      steps: Number of steps of the whole schedule.
      warmup: Number of these steps in which the rate rises.
      end: Rate at the end.

    Raises:
      UsageError: A rate or a number of steps is out of its range.
    """
    _check(peak, steps, warmup)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = peak * (step + 1) / (warmup + 1)
        fallen = tf.clip_by_value((step - warmup) / (steps - warmup), 0.0, 1.0)
        falling = end + (peak - end) * 0.5 * (1 + tf.cos(math.pi * fallen))
        return tf.where(step < warmup, rising, falling)

    return schedule


@SCHEDULES.register("cosine")
def _cosine(peak_rate: float, steps: int, warmup: float = 0.1) -> Schedule:
    return warmup_cosine(peak_rate, steps, int(warmup * steps))


def one_cycle(
    peak: float,
    steps: int,
    rise: float = 0.3,
    start: float = 1 / 25,
    end: float = 1e-4,
) -> Schedule:
    """Goes up to `peak` and down again, both as half a cosine.

    Source: Smith and Topin, "Super-convergence", 2018, with cosines instead of lines.

    Args:
      peak: Highest rate.
      steps: Number of steps of the whole schedule.
      rise: Share of the steps in which the rate rises, in [0, 1).
      start: First rate, as a share of the peak.
      end: Last rate, as a share of the peak.

    Raises:
      UsageError: The peak, the steps or the rise are out of their range.
    """
    _check(peak, steps)
    if not 0 <= rise < 1:
        raise UsageError(f"the rise of one_cycle is {rise}: give a share in [0, 1)")
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


@SCHEDULES.register("one_cycle")
def _one_cycle(peak_rate: float, steps: int, warmup: float = 0.1) -> Schedule:
    return one_cycle(peak_rate, steps, warmup)


def piecewise(boundaries: Sequence[int], rates: Sequence[float]) -> Schedule:
    """Uses rates[i] from step boundaries[i - 1] to before step boundaries[i].

    Args:
      boundaries: Steps at which the rate changes, in rising order.
      rates: Rates, one more than boundaries.

    Raises:
      UsageError: The boundaries fall, or there are too few or many rates, or one is out
        of range.
    """
    if len(rates) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise UsageError(
            f"boundaries are {list(boundaries)} and rates {list(rates)}: give rising "
            "boundaries, and one rate more"
        )
    for rate in rates:
        _check(rate)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        passed = tf.constant(list(boundaries), tf.int64) <= tf.cast(step, tf.int64)
        index = tf.reduce_sum(tf.cast(passed, tf.int32))
        return tf.gather(tf.constant(list(rates), tf.float32), index)

    return schedule


@SCHEDULES.register("piecewise")
def _piecewise(
    peak_rate: float, steps: int, decay: float = 0.1, milestones: str = "0.5,0.75"
) -> Schedule:
    shares = parse_milestones(milestones)
    try:
        rates = [peak_rate * decay**i for i in range(len(shares) + 1)]
    except OverflowError:
        raise UsageError(
            f"decay is {decay}: over {len(shares)} milestones the rate overflows; give "
            "a smaller one"
        ) from None
    return piecewise([int(share * steps) for share in shares], rates)


def parse_milestones(milestones: str) -> list[float]:
    """Reads the milestones of "piecewise": "0.5,0.75" is [0.5, 0.75].

    Args:
      milestones: Rising shares of the steps, separated by commas.

    Raises:
      UsageError: They are not rising numbers between 0 and 1.
    """
    try:
        shares = [float(share) for share in milestones.split(",")]
    except ValueError:
        shares = [math.nan]
    # A comparison with NaN is false.
    if not all(a < b for a, b in zip([0.0, *shares], [*shares, 1.0], strict=True)):
        raise UsageError(
            f"milestones is {milestones!r}: give rising shares of the steps, such as "
            "0.5,0.75"
        )
    return shares


def exponential(
    start: float, steps: int, factor: float, staircase: bool = False
) -> Schedule:
    """Multiplies the rate by `factor` every `steps` steps.

    Args:
      start: First rate.
      steps: Number of steps in which the rate is multiplied by `factor` once.
      factor: Factor, above 0.
      staircase: Whether the rate changes only once every `steps` steps.

    Raises:
      UsageError: An argument is out of its range.
    """
    _check(start, steps)
    if not 0 < factor <= _LARGEST:
        raise UsageError(f"the factor of exponential is {factor}: give one above 0")

    def schedule(step: tf.Tensor) -> tf.Tensor:
        times = tf.cast(step, tf.float32) / steps
        return start * factor ** (tf.floor(times) if staircase else times)

    return schedule


@SCHEDULES.register("exponential")
def _exponential(peak_rate: float, steps: int, decay: float = 0.1) -> Schedule:
    return exponential(peak_rate, steps, decay)


def polynomial(
    start: float, steps: int, end: float = 0.0, power: float = 1.0
) -> Schedule:
    """Goes from `start` to `end` in `steps` steps.

    The rate is end + (start - end) * (1 - step / steps) ** power.

    Args:
      start: First rate.
      steps: Number of steps of the whole schedule.
      end: Rate at the end.
      power: Exponent; 1 is a line.

    Raises:
      UsageError: A rate, the steps or the power are out of their range.
    """
    _check(start, steps)
    if not (end >= 0 and power > 0):
        raise UsageError(
            f"end is {end} and power is {power}: they must be at least 0, and above 0"
        )

    def schedule(step: tf.Tensor) -> tf.Tensor:
        left = 1 - tf.minimum(tf.cast(step, tf.float32) / steps, 1.0)
        return end + (start - end) * left**power

    return schedule


@SCHEDULES.register("polynomial")
def _polynomial(peak_rate: float, steps: int) -> Schedule:
    return polynomial(peak_rate, steps)


def _check(rate: float, steps: int = 1, warmup: int = 0) -> None:
    if not 0 <= rate <= _LARGEST:
        raise UsageError(
            f"a rate of the schedule is {rate}: give one from 0 to {_LARGEST:.2g}"
        )
    if steps < 1 or not 0 <= warmup < steps:
        raise UsageError(
            f"steps is {steps} and warmup {warmup}: give at least 1 step, and fewer of "
            "warm-up"
        )
