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
from lenet_tf.parallel.strategies import make_strategy

SLOTS = {
    "adam": ["m", "v"],
    "adamw": ["m", "v"],
    "lamb": ["m", "v"],
    "lion": ["m"],
    "rmsprop": ["mean_square"],
    "sgd": ["velocity"],
}


@pytest.mark.parametrize("case", CASES)
def test_100_random_steps_are_those_of_keras(case: str) -> None:
    ours, keras_optimizer = CASES[case]
    assert_close(train(ours()), train_keras(keras_optimizer()), atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c.split()[0] in SLOTS])
def test_slots_hold_zeros_of_the_variables_shapes_after_build(case: str) -> None:
    optimizer = CASES[case][0]()
    assert optimizer.variables == ()
    variables = [
        tf.Variable(value, name=f"layer{i}/w") for i, value in enumerate(initial())
    ]
    optimizer.build(variables)
    names = SLOTS[case.split()[0]]
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


@pytest.mark.parametrize("case", [c for c in CASES if "other constants" not in c])
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
    for slot in optimizer.variables:
        copies = strategy.experimental_local_results(slot)
        for copy in copies:
            assert copy.numpy().any()
            np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.parametrize("case", CASES)
def test_16_bit_variables_train_as_float32_but_for_their_own_rounding(
    case: str,
) -> None:
    """One model has bfloat16 and float16 variables; gradients of any dtype will do."""
    dtypes = ["bfloat16", "float16"]
    strategy = make_strategy(2)
    with strategy.scope():
        variables = [tf.Variable(tf.cast(w, d)) for d in dtypes for w in initial()]
        ours = CASES[case][0]()
        ours.build(variables)
    assert {slot.dtype for slot in ours.variables} == {tf.float32}

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        own = [tf.cast(g, v.dtype) for g, v in zip(grads, variables[:3], strict=True)]
        strategy.run(ours.apply, args=([*own, *grads], variables, i))

    for i in range(5):
        step([tf.constant(g) for g in gradients(i)], tf.constant(i, tf.int64))
    expected = train(CASES[case][0](), 5) * 2
    for i, (variable, value) in enumerate(zip(variables, expected, strict=True)):
        for copy in strategy.experimental_local_results(variable):
            assert copy.dtype == dtypes[i // 3]
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
