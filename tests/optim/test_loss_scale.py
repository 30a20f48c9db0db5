"""Mixed precision, loss scaling and XLA."""

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
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


def test_a_bad_step_is_skipped_and_halves_the_scale_and_good_ones_double_it() -> None:
    scale, weight = LossScale(8.0), tf.Variable(0.0)

    @tf.function
    def step(finite: tf.Tensor) -> tf.Tensor:
        return scale.guard(finite, lambda: weight.assign_add(1.0))

    good, bad = tf.constant(True), tf.constant(False)
    assert step(good) and float(weight) == 1 and float(scale.scale) == 8
    assert step(bad) and float(weight) == 1 and float(scale.scale) == 4
    assert int(scale.good_steps) == 0
    for _ in range(GROWTH_STEPS):
        assert step(good)
    assert float(scale.scale) == 8 and float(weight) == 1 + GROWTH_STEPS
    for _ in range(3):
        assert step(bad)
    assert not step(bad)
