"""Behaviour of the optimizers: rules, modules, NumPy, Keras."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim import SGD, Adam, AdamW, LearningRate, Optimizer
from lenet_tf.optim.adam import AdamState, adam_update
from lenet_tf.optim.sgd import sgd_update

SHAPES = [[4, 3], [3], [2, 2, 1, 2]]
STEPS = 100

CASES: dict[str, tuple[Callable[[], Optimizer], Callable[[], keras.Optimizer]]] = {
    "adam": (lambda: Adam(3e-3), lambda: keras.optimizers.Adam(3e-3)),
    "adam with other constants": (
        lambda: Adam(1e-2, beta_1=0.7, beta_2=0.99, epsilon=1e-3),
        lambda: keras.optimizers.Adam(1e-2, beta_1=0.7, beta_2=0.99, epsilon=1e-3),
    ),
    "sgd": (lambda: SGD(0.05), lambda: keras.optimizers.SGD(0.05)),
    "sgd with momentum": (
        lambda: SGD(0.05, momentum=0.9),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    ),
    "sgd with Nesterov's momentum": (
        lambda: SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    ),
}


def initial() -> list[np.ndarray]:
    """Draws parameters."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    """Draws gradients whose sizes differ by orders from step to step."""
    rng = np.random.default_rng(step + 1)
    scale = 10.0 ** rng.uniform(-3, 1)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]


def train(optimizer: Optimizer, steps: int = STEPS) -> list[np.ndarray]:
    """Applies an optimizer module on one replica, and returns the parameters."""
    variables = [tf.Variable(value) for value in initial()]
    optimizer.build(variables)
    strategy = tf.distribute.get_strategy()

    @tf.function
    def step(grads: list[tf.Tensor], i: tf.Tensor) -> None:
        strategy.run(lambda: optimizer.apply(grads, variables, i))

    for i in range(steps):
        step([tf.constant(g) for g in gradients(i)], tf.constant(i, tf.int64))
    return [variable.numpy() for variable in variables]


def train_keras(optimizer: keras.Optimizer) -> list[np.ndarray]:
    """The same with an optimizer of Keras."""
    variables = [keras.Variable(value) for value in initial()]
    optimizer.build(variables)
    for i in range(STEPS):
        optimizer.apply([tf.constant(g) for g in gradients(i)], variables)
    return [np.asarray(variable) for variable in variables]


def assert_close(a: list[np.ndarray], b: list[np.ndarray], atol: float) -> None:
    """Holds two lists of parameters together."""
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_100_random_steps_are_those_of_keras(case: str) -> None:
    ours, keras_optimizer = CASES[case]
    assert_close(train(ours()), train_keras(keras_optimizer()), atol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_module_its_rule_and_numpy_agree_over_100_random_steps(
    momentum: float, nesterov: bool
) -> None:
    rate = 0.05
    ruled = [(tf.constant(w), tf.zeros_like(w)) for w in initial()]
    reference = [(w.astype(np.float64), np.zeros(w.shape)) for w in initial()]
    for i in range(STEPS):
        for k, g in enumerate(gradients(i)):
            ruled[k] = sgd_update(*ruled[k], tf.constant(g), rate, momentum, nesterov)
            w, velocity = reference[k]
            velocity = momentum * velocity - rate * g
            move = momentum * velocity - rate * g if nesterov else velocity
            reference[k] = (w + move, velocity)
    expected = [w for w, _ in reference]
    assert_close([w.numpy() for w, _ in ruled], expected, atol=1e-5)
    assert_close(train(SGD(rate, momentum, nesterov)), expected, atol=1e-5)


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


@pytest.mark.parametrize("rate", [0, -1e-3, float("nan"), 1e-300, float("inf")])
@pytest.mark.parametrize("kind", [Adam, SGD])
def test_a_learning_rate_that_is_not_above_0_is_refused(
    kind: type[Adam] | type[SGD], rate: float
) -> None:
    with pytest.raises(UsageError, match=f"learning_rate is {rate}: .* above 0"):
        kind(rate)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5])
def test_a_momentum_outside_0_to_1_is_refused(momentum: float) -> None:
    with pytest.raises(UsageError, match=rf"momentum is {momentum}: .*\[0, 1\)"):
        SGD(0.1, momentum)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("beta_1", 1.0), ("beta_1", -0.1), ("beta_2", 1.0), ("epsilon", 0.0)],
)
def test_constants_of_adam_out_of_range_are_refused(
    argument: str, value: float
) -> None:
    with pytest.raises(UsageError, match=f"{argument} is {value}"):
        Adam(1e-3, **{argument: value})


def test_gradients_that_do_not_match_the_variables_in_number_are_refused() -> None:
    variables = [tf.Variable(value) for value in initial()]
    optimizer = SGD()
    optimizer.build(variables)
    grads = [tf.constant(g) for g in gradients(0)[:-1]]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        tf.distribute.get_strategy().run(
            optimizer.apply, args=(grads, variables, tf.constant(0, tf.int64))
        )


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
