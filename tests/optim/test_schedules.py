"""Learning-rate schedules against Keras's, and closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim import schedules

STEPS = [0, 1, 5, 10, 19, 20, 21, 50, 99, 100, 150]


def rates(schedule: schedules.Schedule) -> np.ndarray:
    return np.array([float(schedule(tf.constant(s, tf.int64))) for s in STEPS])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            schedules.warmup_cosine(0.1, 100, end=0.01),
            keras.optimizers.schedules.CosineDecay(0.1, 100, alpha=0.1),
        ),
        (
            schedules.piecewise([10, 50], [1.0, 0.5, 0.1]),
            # Keras changes after the boundary, we at it.
            keras.optimizers.schedules.PiecewiseConstantDecay([9, 49], [1.0, 0.5, 0.1]),
        ),
        (
            schedules.exponential(0.1, 20, 0.5),
            keras.optimizers.schedules.ExponentialDecay(0.1, 20, 0.5),
        ),
        (
            schedules.exponential(0.1, 20, 0.5, staircase=True),
            keras.optimizers.schedules.ExponentialDecay(0.1, 20, 0.5, staircase=True),
        ),
        (
            schedules.polynomial(0.1, 100, 0.02, power=2.0),
            keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.02, power=2.0),
        ),
    ],
    ids=["cosine", "piecewise", "exponential", "staircase", "polynomial"],
)
def test_a_schedule_is_that_of_keras(
    ours: schedules.Schedule, theirs: keras.optimizers.schedules.LearningRateSchedule
) -> None:
    expected = [float(theirs(s)) for s in STEPS]
    np.testing.assert_allclose(rates(ours), expected, rtol=1e-6, atol=1e-9)


def test_warm_up_rises_in_equal_steps_to_the_peak_and_never_begins_at_0() -> None:
    schedule = schedules.warmup_cosine(1.0, 100, warmup=20)
    np.testing.assert_allclose(
        rates(schedule)[:6], np.array([1, 2, 6, 11, 20, 21]) / 21
    )
    assert rates(schedule)[-3] == pytest.approx(0, abs=1e-3)
    assert rates(schedule)[-1] == 0


def test_one_cycle_goes_up_and_down_and_stays_at_its_end() -> None:
    schedule = schedules.one_cycle(1.0, 100, rise=0.2, start=0.1, end=0.001)
    values = [float(schedule(tf.constant(s))) for s in range(120)]
    assert values[0] == pytest.approx(0.1)
    assert values[20] == pytest.approx(1.0)
    assert values[10] == pytest.approx(0.55)
    assert np.argmax(values) == 20
    assert values[100:] == pytest.approx([0.001] * 20, rel=1e-4)


def test_a_constant_is_constant() -> None:
    assert set(rates(schedules.constant(0.25))) == {0.25}


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.warmup_cosine(1.0, 10, warmup=10),
        lambda: schedules.one_cycle(1.0, 0),
        lambda: schedules.polynomial(1.0, 0),
        lambda: schedules.exponential(1.0, -1, 0.5),
        lambda: schedules.piecewise([1, 2], [1.0, 2.0]),
        lambda: schedules.piecewise([2, 1], [1.0, 2.0, 3.0]),
    ],
)
def test_impossible_schedules_are_refused(make: object) -> None:
    with pytest.raises(UsageError, match="give"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("steps", [1, 7, 160])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
def test_a_registered_schedule_counts_in_shares_of_the_steps(
    steps: int, warmup: float
) -> None:
    settings = {"warmup": warmup, "decay": 0.3, "milestones": "0.25,0.5", "epochs": 2}
    expected = {
        "constant": schedules.constant(0.1),
        "cosine": schedules.warmup_cosine(0.1, steps, int(warmup * steps)),
        "one_cycle": schedules.one_cycle(0.1, steps, warmup),
        "piecewise": schedules.piecewise(
            [int(0.25 * steps), int(0.5 * steps)], [0.1, 0.1 * 0.3, 0.1 * 0.3**2]
        ),
        "exponential": schedules.exponential(0.1, steps, 0.3),
        "polynomial": schedules.polynomial(0.1, steps),
    }
    assert set(expected) == set(schedules.SCHEDULES)
    for name, plain in expected.items():
        made = schedules.SCHEDULES.make(name, 0.1, steps, settings=settings)
        np.testing.assert_array_equal(rates(made), rates(plain))


def test_milestones_are_rising_shares() -> None:
    assert schedules.parse_milestones("0.5,0.75") == [0.5, 0.75]


@pytest.mark.parametrize(
    "text", ["", "x", "0.5,", "0.7,0.5", "0.2,0.2", "0,0.5", "0.5,1", "nan", "0.5,inf"]
)
def test_milestones_that_do_not_rise_between_0_and_1_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"milestones is .* such as 0.5,0.75"):
        schedules.parse_milestones(text)


@pytest.mark.parametrize("decay", [1e300, 1e30, float("nan")])
def test_a_decay_that_overflows_the_rate_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="give"):
        schedules.SCHEDULES.make("piecewise", 1e-3, 100, settings={"decay": decay})
