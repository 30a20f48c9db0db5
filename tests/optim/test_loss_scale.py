"""Mixed precision, loss scaling and XLA."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim.adam import Adam
from lenet_tf.optim.loss_scale import GROWTH_STEPS, LossScale

Arrays = dict[str, np.ndarray]


def fit(
    digits: Arrays, precision: str = "float32", **options: bool
) -> tuple[lenet_tf.LeNet5, dict[str, list[float]]]:
    strategy = lenet_tf.make_strategy(2)
    with strategy.scope():
        model = lenet_tf.LeNet5(precision=precision, seed=1)
    trainer = lenet_tf.Trainer(
        model, lenet_tf.SGD(0.05, 0.9), strategy=strategy, **options
    )
    return model, trainer.fit(lenet_tf.Batches(digits, 32), epochs=4)


@pytest.mark.parametrize(
    ("precision", "scaling", "tolerance"),
    # In float16 the first steps are skipped, until the scale fits.
    [("mixed_bfloat16", False, 0.03), ("mixed_float16", True, 0.1)],
)
def test_mixed_precision_trains_nearly_as_float32(
    digits: Arrays, precision: str, scaling: bool, tolerance: float
) -> None:
    _, plain = fit(digits)
    model, mixed = fit(digits, precision, loss_scaling=scaling)
    assert all(v.dtype == tf.float32 for v in model.trainable_variables)
    assert mixed["loss"] != plain["loss"]
    np.testing.assert_allclose(mixed["loss"], plain["loss"], rtol=tolerance)


def test_xla_gives_the_same_weights(digits: Arrays) -> None:
    plain, _ = fit(digits)
    compiled, _ = fit(digits, jit_compile=True)
    for a, b in zip(
        plain.trainable_variables, compiled.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-5)


def test_loss_scaling_changes_no_number_in_float32(digits: Arrays) -> None:
    plain, _ = fit(digits)
    scaled, _ = fit(digits, loss_scaling=True)
    for a, b in zip(plain.trainable_variables, scaled.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-6)


def guarded(scale: LossScale, weight: tf.Variable) -> Callable[[bool, bool], bool]:
    @tf.function
    def step(loss_finite: tf.Tensor, gradient_finite: tf.Tensor) -> tf.Tensor:
        return scale.guard(loss_finite, gradient_finite, lambda: weight.assign_add(1.0))

    return lambda *finite: bool(step(*map(tf.constant, finite)))


def test_a_bad_step_is_skipped_and_halves_the_scale_and_good_ones_double_it() -> None:
    scale, weight = LossScale(8.0), tf.Variable(0.0)
    step = guarded(scale, weight)
    assert step(True, True) and float(weight) == 1 and float(scale.scale) == 8
    assert step(True, False) and float(weight) == 1 and float(scale.scale) == 4
    assert int(scale.good_steps) == 0
    for _ in range(GROWTH_STEPS):
        assert step(True, True)
    assert float(scale.scale) == 8 and float(weight) == 1 + GROWTH_STEPS
    for _ in range(3):
        assert step(True, False)
    assert not step(True, False)
    assert int(scale.skipped) == 5


@pytest.mark.parametrize("gradient_finite", [True, False])
def test_a_loss_that_is_not_finite_ends_the_run_without_an_update(
    gradient_finite: bool,
) -> None:
    scale, weight = LossScale(8.0), tf.Variable(0.0)
    assert not guarded(scale, weight)(False, gradient_finite)
    assert float(weight) == 0 and float(scale.scale) == 8


def test_steps_that_were_skipped_do_not_count_as_steps_of_adam() -> None:
    """With three overflows before it, Adam's first step is still its first."""
    scale, weight = LossScale(), tf.Variable([1.0, -1.0])
    optimizer = Adam(0.1)
    optimizer.build([weight])

    @tf.function
    def train(gradient: tf.Tensor, step: tf.Tensor) -> None:
        updates = step - scale.skipped.read_value()
        finite = tf.math.is_finite(tf.reduce_sum(gradient))
        scale.guard(
            tf.constant(True),
            finite,
            lambda: optimizer.apply([gradient], [weight], updates),
        )

    for step, gradient in enumerate([np.inf, np.nan, np.inf, 2.0]):
        train(tf.fill([2], tf.constant(gradient)), tf.constant(step, tf.int64))
    # The first step of Adam is as long as the rate; at t = 4 it would be 0.054.
    np.testing.assert_allclose(weight, [0.9, -1.1], rtol=1e-5)
