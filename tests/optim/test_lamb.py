"""LAMB against its rule and NumPy; Keras and replicas are in test_optimizers.py."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import LAMB
from lenet_tf.optim.adam import AdamState
from lenet_tf.optim.lamb import lamb_update


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lamb_its_rule_and_numpy_agree_over_100_random_steps(decay: float) -> None:
    rate = float(np.float32(1e-2))  # The rate is a float32 everywhere.
    ruled = [
        AdamState(tf.constant(w), tf.zeros_like(w), tf.zeros_like(w)) for w in initial()
    ]
    reference = [
        (w.astype(np.float64), np.zeros(w.shape), np.zeros(w.shape)) for w in initial()
    ]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            factor = decay if g.ndim > 1 else 0.0
            ruled[k] = lamb_update(ruled[k], tf.constant(g), i, rate, factor)
            # Algorithm 2 of the paper, line by line.
            (w, m, v), g = reference[k], g.astype(np.float64)
            m = 0.9 * m + (1 - 0.9) * g
            v = 0.999 * v + (1 - 0.999) * g**2
            m_hat, v_hat = m / (1 - 0.9 ** (i + 1)), v / (1 - 0.999 ** (i + 1))
            r = m_hat / (np.sqrt(v_hat) + 1e-6) + factor * w
            trust = np.sqrt((w**2).sum()) / np.sqrt((r**2).sum())
            reference[k] = (w - rate * trust * r, m, v)
    expected = [w for w, _, _ in reference]
    assert_close([state.parameter.numpy() for state in ruled], expected, atol=1e-6)
    assert_close(train(LAMB(rate, decay)), expected, atol=1e-6)
    in_float64 = train(LAMB(rate, decay), dtype="float64")
    for ours, value in zip(in_float64, expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-11)


def test_the_norm_of_a_step_is_the_rate_times_the_norm_of_the_variable() -> None:
    for w, new in zip(initial(), train(LAMB(0.125, 0.3), steps=1), strict=True):
        share = np.linalg.norm(new - w) / np.linalg.norm(w)
        assert share == pytest.approx(0.125, rel=1e-5)


def test_a_variable_of_zeros_and_one_without_gradient_stay_finite() -> None:
    variables = [tf.Variable([0.0, 0.0]), tf.Variable([3.0, 4.0])]
    lamb = LAMB(0.5)
    lamb.build(variables)
    gradients = [tf.constant([2.0, -7.0]), tf.zeros([2])]
    lamb.apply(gradients, variables, tf.constant(0, tf.int64))
    # Adam's first step, with a ratio of 1.
    np.testing.assert_allclose(variables[0], [-0.5, 0.5], rtol=1e-4)
    np.testing.assert_array_equal(variables[1], [3.0, 4.0])


@pytest.mark.parametrize(
    "options", [{"beta_1": 1.0}, {"beta_2": -0.1}, {"epsilon": 0.0}]
)
def test_a_constant_out_of_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"betas must be in \[0, 1\) and epsilon"):
        LAMB(1e-3, **options)
