"""SGD against its rule, NumPy and the paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import SGD
from lenet_tf.optim.sgd import sgd_update


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_module_its_rule_and_numpy_agree_over_100_random_steps(
    momentum: float, nesterov: bool
) -> None:
    rate = float(np.float32(0.05))  # The rate is a float32 everywhere.
    ruled = [(tf.constant(w), tf.zeros_like(w)) for w in initial()]
    reference = [(w.astype(np.float64), np.zeros(w.shape)) for w in initial()]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            ruled[k] = sgd_update(*ruled[k], tf.constant(g), rate, momentum, nesterov)
            (w, velocity), g = reference[k], g.astype(np.float64)
            velocity = momentum * velocity - rate * g
            move = momentum * velocity - rate * g if nesterov else velocity
            reference[k] = (w + move, velocity)
    expected = [w for w, _ in reference]
    assert_close([w.numpy() for w, _ in ruled], expected, atol=1e-5)
    assert_close(train(SGD(rate, momentum, nesterov)), expected, atol=1e-5)
    in_float64 = train(SGD(rate, momentum, nesterov), dtype="float64")
    for ours, value in zip(in_float64, expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-11)


def test_nesterovs_gradient_is_taken_where_the_velocity_leads_to() -> None:
    """Equations 3 and 4 of Sutskever et al., on f(w) = w^4 / 4."""
    rate, momentum = 0.1, 0.8
    w, velocity = 1.0, 0.0
    parameter, u = tf.constant(w), tf.constant(velocity)
    for _ in range(20):
        ahead = w + momentum * velocity
        assert float(parameter) == pytest.approx(ahead, abs=1e-6)
        velocity = momentum * velocity - rate * ahead**3
        w += velocity
        parameter, u = sgd_update(parameter, u, parameter**3, rate, momentum, True)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5])
def test_a_momentum_outside_0_to_1_is_refused(momentum: float) -> None:
    with pytest.raises(UsageError, match=rf"momentum is {momentum}: .*\[0, 1\)"):
        SGD(0.1, momentum)
