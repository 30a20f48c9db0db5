"""The average of the weights."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.averaging import Average


def test_the_average_follows_its_formula(strategy: tf.distribute.Strategy) -> None:
    with strategy.scope():
        weights = [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])]
        average = Average(weights, 0.5)
    expected = [w.numpy() for w in weights]
    for step in range(12):
        for w in weights:
            w.assign(w.numpy() + step)
        strategy.run(average.update, args=(tf.constant(step, tf.int64),))
        keep = min(0.5, (1 + step) / (10 + step))
        expected = [
            keep * e + (1 - keep) * w.numpy()
            for e, w in zip(expected, weights, strict=True)
        ]
    for variable, value in zip(average.averages, expected, strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy, value, rtol=1e-6)


def test_in_place_gives_the_weights_back_bit_for_bit_also_after_an_error() -> None:
    weights = [tf.Variable([1.0, 1 / 3])]
    average = Average(weights, 0.9)
    weights[0].assign([5.0, 7.0])
    with pytest.raises(KeyError), average.in_place():
        np.testing.assert_array_equal(weights[0], np.float32([1.0, 1 / 3]))
        raise KeyError
    np.testing.assert_array_equal(weights[0], [5.0, 7.0])


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_a_decay_outside_of_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        Average([tf.Variable(1.0)], decay)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 0), ("bfloat16", 0.01)])
def test_variables_of_other_dtypes_are_averaged(dtype: str, tolerance: float) -> None:
    weight = tf.Variable(tf.cast([1.0], dtype))
    average = Average([weight], 0.999)
    assert average.averages[0].dtype == ("float64" if dtype == "float64" else "float32")
    weight.assign([2.0])
    # Each step moves it by a thousandth, which bfloat16 could not hold.
    for _ in range(500):
        average.update(tf.constant(100_000, tf.int64))
    expected = 2 - 0.999**500
    np.testing.assert_allclose(average.averages[0], [expected], rtol=1e-4)
    average.assign_to_model()
    assert weight.dtype == dtype
    result = tf.cast(weight, tf.float64)
    np.testing.assert_allclose(result, [expected], rtol=tolerance or 1e-4)
