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
