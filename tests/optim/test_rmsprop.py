"""RMSprop against its rule and NumPy; test_optimizers.py has Keras."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import RMSprop
from lenet_tf.optim.rmsprop import rmsprop_update


def test_rmsprop_its_rule_and_numpy_agree_over_100_random_steps() -> None:
    rate, rho = float(np.float32(3e-3)), 0.8  # The rate is a float32 everywhere.
    ruled = [(tf.constant(w), tf.zeros_like(w)) for w in initial()]
    reference = [(w.astype(np.float64), np.zeros(w.shape)) for w in initial()]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            ruled[k] = rmsprop_update(*ruled[k], tf.constant(g), rate, rho)
            (w, square), g = reference[k], g.astype(np.float64)
            square = rho * square + (1 - rho) * g**2
            reference[k] = (w - rate * g / np.sqrt(square + 1e-7), square)
    expected = [w for w, _ in reference]
    assert_close([w.numpy() for w, _ in ruled], expected, atol=1e-5)
    assert_close(train(RMSprop(rate, rho)), expected, atol=1e-5)
    in_float64 = train(RMSprop(rate, rho), dtype="float64")
    for ours, value in zip(in_float64, expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-11)


@pytest.mark.parametrize("options", [{"rho": 1.0}, {"rho": -0.1}, {"epsilon": 0.0}])
def test_a_constant_out_of_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"rho must be in \[0, 1\)"):
        RMSprop(1e-3, **options)
