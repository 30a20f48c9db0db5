"""Muon against its rule and NumPy; Keras and replicas are in test_optimizers.py."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import STEPS, assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import Adam, Muon
from lenet_tf.optim.muon import muon_update, orthogonalized


def newton_schulz(g: np.ndarray) -> np.ndarray:
    """The function of the authors' post, in NumPy and float64."""
    a, b, c = (3.4445, -4.7750, 2.0315)
    x = g / (np.linalg.norm(g) + 1e-7)
    if g.shape[0] > g.shape[1]:
        x = x.T
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def test_muon_its_rule_and_numpy_agree_over_100_random_steps() -> None:
    rate, decay = float(np.float32(3e-3)), 0.1  # The rate is a float32 everywhere.
    adam = train(Adam(rate), dtype="float64")
    expected, ruled = [], []
    for k, value in enumerate(initial()):
        if value.ndim < 2:
            expected.append(adam[k])
            ruled.append(adam[k])
            continue
        w, u = value.astype(np.float64), np.zeros(value.shape)
        pair = tf.constant(value), tf.zeros_like(value)
        for i in range(STEPS):
            g = gradients(i)[k]
            pair = muon_update(*pair, tf.constant(g), rate, decay)
            g = g.astype(np.float64)
            u = 0.95 * u + g
            matrix = (g + 0.95 * u).reshape(-1, g.shape[-1])
            o = 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
            w = w - rate * (o.reshape(g.shape) + decay * w)
        expected.append(w)
        ruled.append(pair[0].numpy())
    assert_close(ruled, expected, atol=1e-6)
    assert_close(train(Muon(rate, decay)), expected, atol=1e-6)
    in_float64 = train(Muon(rate, decay), dtype="float64")
    for ours, value in zip(in_float64, expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-10)


@pytest.mark.parametrize("shape", [[20, 30], [30, 20], [25, 25], [1, 9], [9, 1]])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_singular_values_come_near_1_and_singular_vectors_stay(
    shape: list[int], size: float
) -> None:
    matrix = np.random.default_rng(0).normal(size=shape) * size
    result = orthogonalized(tf.constant(matrix, tf.float32)).numpy()
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    values = np.diag(u.T @ result @ v.T)
    large = s > 0.02 * s[0]  # A very small one takes more iterations.
    assert large.mean() > 0.9
    assert np.all((values[large] > 0.6) & (values[large] < 1.25))
    np.testing.assert_allclose(result, u * values @ v, atol=1e-4)


def test_a_gradient_of_zeros_moves_nothing_but_by_the_decay() -> None:
    variable = tf.Variable([[2.0, 4.0]])
    muon = Muon(0.5, weight_decay=0.5)
    muon.build([variable])
    muon.apply([tf.zeros([1, 2])], [variable], tf.constant(0, tf.int64))
    np.testing.assert_array_equal(variable, [[1.5, 3.0]])


def test_matrices_have_a_velocity_and_other_variables_adams_slots() -> None:
    variables = [
        tf.Variable(tf.ones(shape), name=name)
        for name, shape in [("w", [4, 3]), ("b", [3]), ("k", [2, 2, 1, 2]), ("s", [])]
    ]
    muon = Muon(tf.Variable(1e-3))
    muon.build(variables)
    names = {slot.name for slot in muon.variables if not slot.name.startswith("Var")}
    assert names == {"w/velocity:0", "k/velocity:0"} | {
        f"{name}/{slot}:0" for name in "bs" for slot in "mv"
    }
    assert muon.adam.learning_rate is muon.learning_rate
    with pytest.raises(UsageError, match="make another one"):
        muon.build(variables)


def test_a_model_without_matrices_trains_as_with_adam() -> None:
    ours, theirs = ([tf.Variable([1.0, 2.0])] for _ in range(2))
    for optimizer, variables in ((Muon(1e-2), ours), (Adam(1e-2), theirs)):
        optimizer.build(variables)
        for step in range(5):
            gradient = tf.constant([step - 1.5, 3.0])
            optimizer.apply([gradient], variables, tf.constant(step, tf.int64))
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize(
    "options", [{"momentum": 1.0}, {"beta_1": 1.0}, {"epsilon": 0.0}]
)
def test_a_constant_out_of_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"must be in \[0, 1\)"):
        Muon(1e-3, **options)
