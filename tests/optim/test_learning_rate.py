"""The learning rate of an optimizer: number, variable or schedule."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from random_steps import assert_close, gradients, initial, train

from lenet_tf.errors import UsageError
from lenet_tf.optim import SGD, Adam, LearningRate, Optimizer


@pytest.mark.parametrize("make", [Adam, lambda rate: SGD(rate, momentum=0.9)])
def test_a_constant_callable_trains_as_the_number_does(
    make: Callable[[LearningRate], Optimizer],
) -> None:
    assert_close(train(make(lambda step: 1e-2)), train(make(1e-2)), atol=0)


def test_a_learning_rate_callable_is_asked_at_each_step_from_0() -> None:
    rate = SGD(lambda step: 1.0 / tf.cast(step + 1, tf.float32))
    expected = initial()
    for i in range(5):
        expected = [
            w - g / (i + 1) for w, g in zip(expected, gradients(i), strict=True)
        ]
    assert_close(train(rate, steps=5), expected, atol=1e-5)


def test_rate_is_a_float32_scalar_at_any_step() -> None:
    step = tf.constant(7, tf.int64)
    for rate in (0.5, lambda step: tf.constant(0.5, tf.float64), lambda step: 0.5):
        value = Adam(rate).rate(step)
        assert (value.dtype, value.shape, float(value)) == (tf.float32, [], 0.5)


@pytest.mark.parametrize("make", [Adam, SGD])
def test_a_rate_in_a_variable_is_read_at_each_step_of_the_same_graph(
    make: Callable[[LearningRate], Optimizer], strategy: tf.distribute.Strategy
) -> None:
    with strategy.scope():
        variables = [tf.Variable(value) for value in initial()]
        changing = make(tf.Variable(0.5))
        changing.build(variables)

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        strategy.run(changing.apply, args=(grads, variables, i))

    for i in range(3):
        changing.learning_rate.assign(0.5**i)
        step([tf.constant(g) for g in gradients(i)], tf.constant(i, tf.int64))
    assert step.experimental_get_tracing_count() == 1
    scheduled = make(lambda step: 0.5 ** tf.cast(step, tf.float32))
    for variable, value in zip(variables, train(scheduled, steps=3), strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_array_equal(copy, value)


def test_a_rate_in_a_variable_is_in_checkpoints(tmp_path: pathlib.Path) -> None:
    saved, restored = (SGD(tf.Variable(rate)) for rate in (0.1, 0.7))
    path = tf.train.Checkpoint(optimizer=saved).write(str(tmp_path / "it"))
    names = [name for name, _ in tf.train.list_variables(path)]
    assert "optimizer/learning_rate/.ATTRIBUTES/VARIABLE_VALUE" in names
    tf.train.Checkpoint(optimizer=restored).read(path).assert_consumed()
    assert float(restored.learning_rate) == np.float32(0.1)


@pytest.mark.parametrize("rate", [0.1, lambda step: 0.1, tf.Variable(0.1)])
def test_a_rate_cannot_be_replaced_and_the_error_shows_how_to_change_it(
    rate: LearningRate,
) -> None:
    optimizer = Adam(rate)
    with pytest.raises(UsageError, match=r"Adam\(tf.Variable\(.*learning_rate.assign"):
        optimizer.learning_rate = 0.01
    assert optimizer.learning_rate is rate


@pytest.mark.parametrize("value", [[0.1], 1], ids=str)
def test_a_variable_that_is_no_float_scalar_is_no_rate(value: object) -> None:
    with pytest.raises(UsageError, match="learning_rate is a variable of shape"):
        SGD(tf.Variable(value))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda step: 0.1 * 0.9**step,
        lambda step: 0.1 / (1 + tf.sqrt(step)),
        lambda step: 0.1 if step < 100 else 0.01,
    ],
    ids=["power", "root", "condition"],
)
def test_a_schedule_that_cannot_be_computed_is_told_before_the_first_step(
    schedule: Callable[[tf.Tensor], tf.Tensor],
) -> None:
    with pytest.raises(
        UsageError,
        match=r"^the schedule of sgd .* tf.cast\(step, tf.float32\).*where.*$",
    ):
        SGD(schedule).build([tf.Variable(1.0)])


def test_a_schedule_of_another_shape_is_refused_before_the_first_step() -> None:
    with pytest.raises(UsageError, match=r"gives shape \(2,\): return a scalar"):
        SGD(lambda step: tf.constant([0.1, 0.2])).build([tf.Variable(1.0)])


@pytest.mark.parametrize("rate", [0, -1e-3, float("nan"), 1e-300, float("inf")])
@pytest.mark.parametrize("kind", [Adam, SGD])
def test_a_learning_rate_that_is_not_above_0_is_refused(
    kind: type[Adam] | type[SGD], rate: float
) -> None:
    with pytest.raises(UsageError, match=f"learning_rate is {rate}: .* above 0"):
        kind(rate)
