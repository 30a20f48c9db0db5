"""Adam and AdamW against their rules and NumPy; test_optimizers.py has Keras."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import LAMB, Adam, AdamW, Lion, Muon
from lenet_tf.optim.adam import AdamState, adam_update


def test_adam_module_its_rule_and_numpy_agree_over_100_random_steps() -> None:
    rate, beta_1, beta_2, epsilon = 3e-3, 0.9, 0.999, 1e-7
    ruled = [
        AdamState(tf.constant(w), tf.zeros_like(w), tf.zeros_like(w)) for w in initial()
    ]
    # Algorithm 1 of the paper as it stands, with the bias-corrected moments.
    reference = [
        (w.astype(np.float64), np.zeros(w.shape), np.zeros(w.shape)) for w in initial()
    ]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            ruled[k] = adam_update(ruled[k], tf.constant(g), i, rate)
            (w, m, v), g = reference[k], g.astype(np.float64)
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * g**2
            m_hat, v_hat = m / (1 - beta_1 ** (i + 1)), v / (1 - beta_2 ** (i + 1))
            reference[k] = (w - rate * m_hat / (np.sqrt(v_hat) + epsilon), m, v)
    expected = [w for w, _, _ in reference]
    assert_close([state.parameter.numpy() for state in ruled], expected, atol=1e-5)
    assert_close(train(Adam(rate)), expected, atol=1e-5)


def test_float64_variables_train_in_float64() -> None:
    rate = float(np.float32(1e-2))  # The rate is a float32 everywhere.
    adam = Adam(rate, beta_1=0.7, beta_2=0.99, epsilon=1e-3)
    states = [
        AdamState(w, np.zeros_like(w), np.zeros_like(w))
        for w in (value.astype(np.float64) for value in initial())
    ]
    for i in range(STEPS):
        states = [
            adam_update(state, g.astype(np.float64), i, rate, 0.7, 0.99, 1e-3)
            for state, g in zip(states, gradients(i), strict=True)
        ]
    for ours, state in zip(train(adam, dtype="float64"), states, strict=True):
        np.testing.assert_allclose(ours, state.parameter, rtol=1e-11)


def test_first_step_of_adam_is_the_learning_rate_against_the_sign() -> None:
    before, after = initial(), train(Adam(1e-2), steps=1)
    for w, new, g in zip(before, after, gradients(0), strict=True):
        np.testing.assert_allclose(new - w, -1e-2 * np.sign(g), rtol=0.02)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("beta_1", 1.0), ("beta_1", -0.1), ("beta_2", 1.0), ("epsilon", 0.0)],
)
def test_constants_of_adam_out_of_range_are_refused(
    argument: str, value: float
) -> None:
    with pytest.raises(UsageError, match=f"{argument} is {value}"):
        Adam(1e-3, **{argument: value})


def test_a_step_of_adamw_is_that_of_adam_after_the_decay_of_the_matrices() -> None:
    """In float64, in which the difference can be told from rounding."""
    rate = float(np.float32(1e-2))
    adam, adamw = Adam(rate), AdamW(rate, weight_decay=0.1)
    before = initial()
    plain, decayed = (train(o, steps=1, dtype="float64") for o in (adam, adamw))
    for w, a, b in zip(before, plain, decayed, strict=True):
        decay = rate * 0.1 * w.astype(np.float64) if w.ndim > 1 else 0 * w
        np.testing.assert_allclose(b, a - decay, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_decay_of_16_bit_variables_is_not_rounded_away(dtype: str) -> None:
    """Each step is that of float32 from the same weights, rounded once."""
    rng = np.random.default_rng(0)
    rate, weight_decay = 4e-3, 0.5
    variable = tf.Variable(tf.cast(rng.uniform(0.5, 2, [30, 20]), dtype))
    optimizer = AdamW(rate, weight_decay)
    optimizer.build([variable])
    m, v = tf.zeros([30, 20]), tf.zeros([30, 20])
    lost = 0
    for step in range(20):
        gradient = tf.constant(rng.normal(size=[30, 20]), tf.float32)
        before = tf.cast(variable, tf.float32)
        optimizer.apply([gradient], [variable], tf.constant(step, tf.int64))
        # The mean of the gradient moves a weight up or down by about the rate, and the
        # decay takes half as much off.
        args = gradient, tf.constant(step, tf.float32), tf.constant(rate)
        plain, m, v = adam_update(AdamState(before, m, v), *args)
        expected = tf.cast(plain - rate * weight_decay * before, dtype)
        np.testing.assert_array_equal(
            tf.cast(variable, tf.float32), tf.cast(expected, tf.float32)
        )
        lost += np.count_nonzero(tf.cast(plain, dtype) != expected)
    assert lost > 100  # So many decays change a weight.


@pytest.mark.parametrize("weight_decay", [-0.1, float("nan"), float("inf")])
def test_a_decay_out_of_range_is_refused(weight_decay: float) -> None:
    for make in (AdamW, Lion, LAMB, Muon):
        with pytest.raises(UsageError, match=rf"weight_decay is {weight_decay}: it mu"):
            make(1e-3, weight_decay)
