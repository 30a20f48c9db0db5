"""Lion against its rule and NumPy; Keras and replicas are in test_optimizers.py."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import Lion
from lenet_tf.optim.lion import lion_update


def test_lion_its_rule_and_numpy_agree_over_100_random_steps() -> None:
    rate, decay = float(np.float32(3e-3)), 0.1  # The rate is a float32 everywhere.
    ruled = [(tf.constant(w), tf.zeros_like(w)) for w in initial()]
    reference = [(w.astype(np.float64), np.zeros(w.shape)) for w in initial()]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            factor = decay if g.ndim > 1 else 0.0
            ruled[k] = lion_update(*ruled[k], tf.constant(g), rate, factor)
            # Algorithm 2 of the paper, line by line.
            (w, m), g = reference[k], g.astype(np.float64)
            c = 0.9 * m + (1 - 0.9) * g
            w = w - rate * (np.sign(c) + factor * w)
            reference[k] = (w, 0.99 * m + (1 - 0.99) * g)
    expected = [w for w, _ in reference]
    assert_close([w.numpy() for w, _ in ruled], expected, atol=1e-6)
    assert_close(train(Lion(rate, decay)), expected, atol=1e-6)
    in_float64 = train(Lion(rate, decay), dtype="float64")
    for ours, value in zip(in_float64, expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-11)


def test_every_entry_moves_by_the_rate_unless_its_gradient_is_0() -> None:
    variable = tf.Variable([[1.0, 2.0, 3.0]])
    lion = Lion(0.25, weight_decay=0.0)
    lion.build([variable])
    for step, expected in enumerate([[0.75, 2.25, 3.0], [0.5, 2.5, 3.0]]):
        gradient = tf.constant([[1e-6, -1e6, 0.0]])
        lion.apply([gradient], [variable], tf.constant(step, tf.int64))
        np.testing.assert_array_equal(variable, [expected])


@pytest.mark.parametrize("options", [{"beta_1": 1.0}, {"beta_2": -0.1}])
def test_a_constant_out_of_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"they must be in \[0, 1\)"):
        Lion(1e-4, **options)
