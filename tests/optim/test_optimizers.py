"""What holds for every optimizer: Keras's numbers, slots, replicas, dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from random_steps import (
    CASES,
    SHAPES,
    assert_close,
    gradients,
    initial,
    train,
    train_keras,
)

from lenet_tf.errors import UsageError
from lenet_tf.optim import SGD
from lenet_tf.optim.adam import AdamState, adam_update
from lenet_tf.optim.sgd import sgd_update


@pytest.mark.parametrize("case", CASES)
def test_100_random_steps_are_those_of_keras(case: str) -> None:
    ours, keras_optimizer = CASES[case]
    assert_close(train(ours()), train_keras(keras_optimizer()), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_slots_hold_zeros_of_the_variables_shapes_after_build(case: str) -> None:
    optimizer = CASES[case][0]()
    assert optimizer.variables == ()
    variables = [
        tf.Variable(value, name=f"layer{i}/w") for i, value in enumerate(initial())
    ]
    optimizer.build(variables)
    names = ["m", "v"] if case.startswith("adam") else ["velocity"]
    assert list(optimizer.slots) == names
    for name, slots in optimizer.slots.items():
        assert [slot.shape for slot in slots] == SHAPES
        assert [slot.name for slot in slots] == [
            f"layer{i}/w/{name}:0" for i in range(len(SHAPES))
        ]
        assert not any(slot.numpy().any() for slot in slots)
    assert len(optimizer.variables) == len(names) * len(SHAPES)
    assert optimizer.trainable_variables == ()


def test_an_optimizer_serves_one_model() -> None:
    variables = [tf.Variable(value) for value in initial()]
    optimizer = SGD(0.1, momentum=0.9)
    optimizer.build(variables)
    with pytest.raises(UsageError, match="make another one"):
        optimizer.build(variables)


@pytest.mark.parametrize("case", CASES)
def test_replicas_update_their_own_copies_as_one_device_would(
    case: str, strategy: tf.distribute.Strategy
) -> None:
    make = CASES[case][0]
    with strategy.scope():
        variables = [tf.Variable(value) for value in initial()]
        optimizer = make()
        optimizer.build(variables)

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        strategy.run(optimizer.apply, args=(grads, variables, i))

    for i in range(5):
        step([tf.constant(g) for g in gradients(i)], tf.constant(i, tf.int64))
    expected = train(make(), steps=5)
    for variable, value in zip(variables, expected, strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy, value, rtol=1e-6, atol=1e-7)
    for slot, variable in zip(optimizer.variables, variables * 2, strict=False):
        assert slot.shape == variable.shape
        copies = strategy.experimental_local_results(slot)
        for copy in copies:
            assert copy.numpy().any()
            np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.parametrize("case", CASES)
def test_float64_variables_train_in_float64(case: str) -> None:
    ours = CASES[case][0]()
    variables = [tf.Variable(w, dtype=tf.float64) for w in initial()]
    ours.build(variables)
    assert {slot.dtype for slots in ours.slots.values() for slot in slots} == {
        tf.float64
    }
    expected = [w.astype(np.float64) for w in initial()]
    slots = [[np.zeros(w.shape) for w in expected] for _ in range(2)]
    for i in range(20):
        grads = [tf.constant(g, tf.float64) for g in gradients(i)]
        ours.apply(grads, variables, tf.constant(i, tf.int64))
        # What float32 makes of the rate is what is meant by it.
        rate = float(np.float32(ours.learning_rate))
        for k, g in enumerate(grads):
            if isinstance(ours, SGD):
                state = expected[k], slots[0][k], g, rate, ours.momentum, ours.nesterov
                expected[k], slots[0][k] = sgd_update(*state)
            else:
                state = AdamState(expected[k], slots[0][k], slots[1][k])
                constants = ours.beta_1, ours.beta_2, ours.epsilon
                state = adam_update(state, g, i, rate, *constants)
                expected[k], slots[0][k], slots[1][k] = state
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_16_bit_variables_train_as_float32_but_for_their_own_rounding(
    case: str, dtype: str, strategy: tf.distribute.Strategy
) -> None:
    with strategy.scope():
        variables = [tf.Variable(tf.cast(w, dtype)) for w in initial()]
        ours = CASES[case][0]()
        ours.build(variables)
    assert {slot.dtype for slots in ours.slots.values() for slot in slots} == {
        tf.float32
    }

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        strategy.run(ours.apply, args=(grads, variables, i))

    for i in range(5):
        # Gradients of either dtype will do.
        grads = [tf.cast(g, dtype if i % 2 else tf.float32) for g in gradients(i)]
        step(grads, tf.constant(i, tf.int64))
    for variable, value in zip(variables, train(CASES[case][0](), 5), strict=True):
        for copy in strategy.experimental_local_results(variable):
            assert copy.dtype == dtype
            np.testing.assert_allclose(tf.cast(copy, tf.float32), value, atol=0.06)


def test_gradients_that_do_not_match_the_variables_in_number_are_refused() -> None:
    variables = [tf.Variable(value) for value in initial()]
    optimizer = SGD()
    optimizer.build(variables)
    grads = [tf.constant(g) for g in gradients(0)[:-1]]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        tf.distribute.get_strategy().run(
            optimizer.apply, args=(grads, variables, tf.constant(0, tf.int64))
        )
