"""Adam and AdamW against their rules, NumPy and Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import Adam, AdamW
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
            w, m, v = reference[k]
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * g.astype(np.float64) ** 2
            m_hat, v_hat = m / (1 - beta_1 ** (i + 1)), v / (1 - beta_2 ** (i + 1))
            reference[k] = (w - rate * m_hat / (np.sqrt(v_hat) + epsilon), m, v)
    expected = [w for w, _, _ in reference]
    assert_close([state.parameter.numpy() for state in ruled], expected, atol=1e-5)
    assert_close(train(Adam(rate)), expected, atol=1e-5)


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


def test_adamw_is_that_of_keras_with_biases_left_out() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,)]
    ours = [tf.Variable(rng.normal(size=s), dtype=tf.float32) for s in shapes]
    theirs = [
        keras.Variable(v.numpy(), name=n) for v, n in zip(ours, "wb", strict=True)
    ]
    optimizer = AdamW(1e-2, weight_decay=0.1)
    optimizer.build(ours)
    reference = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    reference.exclude_from_weight_decay([theirs[1]])
    reference.build(theirs)
    for step in range(100):
        gradients = [tf.constant(rng.normal(size=s), tf.float32) for s in shapes]
        optimizer.apply(gradients, ours, tf.constant(step, tf.int64))
        reference.apply(gradients)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
