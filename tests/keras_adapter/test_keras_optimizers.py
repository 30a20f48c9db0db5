"""Optimizers of Keras through the adapter do what they do in Keras on its own."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import data

import lenet_tf
import lenet_tf.keras
from lenet_tf.errors import UsageError
from lenet_tf.parallel import make_strategy

Make = Callable[[], keras.optimizers.Optimizer]

K = keras.optimizers
SHAPES = {"kernel": [4, 3], "bias": [3]}
STEPS = 6


def decayed() -> keras.optimizers.Optimizer:
    optimizer = K.Lion(1e-2, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


MAKERS: dict[str, Make] = {
    "SGD": lambda: K.SGD(0.1),
    "SGD, Nesterov, clipnorm": lambda: K.SGD(
        0.1, momentum=0.9, nesterov=True, clipnorm=0.5
    ),
    "Adam, schedule": lambda: K.Adam(K.schedules.CosineDecay(0.1, STEPS)),
    "Adam, amsgrad, global_clipnorm": lambda: K.Adam(
        0.05, amsgrad=True, global_clipnorm=1.0
    ),
    "AdamW": lambda: K.AdamW(0.05, weight_decay=0.1),
    "RMSprop, centered": lambda: K.RMSprop(0.01, momentum=0.9, centered=True),
    "Adagrad, clipvalue": lambda: K.Adagrad(0.1, clipvalue=0.3),
    "Adadelta": lambda: K.Adadelta(1.0),
    "Adamax": lambda: K.Adamax(0.05),
    "Nadam": lambda: K.Nadam(0.05),
    "Ftrl": lambda: K.Ftrl(0.1, l1_regularization_strength=0.01),
    "Lion, bias not decayed": decayed,
    "Lamb": lambda: K.Lamb(0.05),
    "Adafactor": lambda: K.Adafactor(0.05),
}


class Layer(keras.Layer):
    """The variables to be trained."""

    def build(self, shape: object) -> None:
        rng = np.random.default_rng(1)
        for name, size in SHAPES.items():
            value = keras.initializers.Constant(rng.normal(size=size))
            setattr(
                self, name, self.add_weight(shape=size, initializer=value, name=name)
            )
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x


def gradients() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(2)
    return [
        [rng.normal(size=size).astype(np.float32) for size in SHAPES.values()]
        for _ in range(STEPS)
    ]


def by_keras(make: Make) -> list[np.ndarray]:
    layer, optimizer = Layer(name="layer"), make()
    layer.build(None)
    for gradient in gradients():
        optimizer.apply([tf.constant(g) for g in gradient], layer.trainable_variables)
    return layer.get_weights()


@pytest.fixture(scope="module")
def ours() -> dict[str, list[np.ndarray]]:
    """The weights after some steps on two replicas, of each optimizer in one trace."""
    strategy = make_strategy(2)
    rules, models = {}, {}
    for name, make in MAKERS.items():
        with strategy.scope():
            layer = Layer(name="layer")
            layer.build(None)
            models[name] = lenet_tf.keras.model(layer)
            rules[name] = lenet_tf.keras.optimizer(make())
            rules[name].build(models[name].trainable_variables)

    def replica(step: tf.Tensor, gradient: list[tf.Tensor]) -> None:
        for name, rule in rules.items():
            rule.apply(gradient, models[name].trainable_variables, step)

    @tf.function(autograph=False)
    def apply(step: tf.Tensor, gradient: list[tf.Tensor]) -> None:
        strategy.run(replica, args=(step, gradient))

    for step, gradient in enumerate(gradients()):
        apply(tf.constant(step, tf.int64), [tf.constant(g) for g in gradient])
    for name, model in models.items():
        for variable in model.trainable_variables:
            np.testing.assert_array_equal(*variable.values, err_msg=name)
    return {name: model.keras_model.get_weights() for name, model in models.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_each_optimizer_is_that_of_keras(
    ours: dict[str, list[np.ndarray]], name: str
) -> None:
    for a, b in zip(ours[name], by_keras(MAKERS[name]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not hasattr(K, "Muon"), reason="Keras is older")
def test_muon_is_that_of_keras_on_one_replica_and_refused_on_two() -> None:
    layer, rule = Layer(name="layer"), lenet_tf.keras.optimizer(K.Muon(0.05))
    layer.build(None)
    variables = lenet_tf.keras.model(layer).trainable_variables
    rule.build(variables)
    for step, gradient in enumerate(gradients()):
        rule.apply([tf.constant(g) for g in gradient], variables, tf.constant(step))
    for a, b in zip(layer.get_weights(), by_keras(lambda: K.Muon(0.05)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    with make_strategy(2).scope():
        variable = tf.Variable(tf.ones([2, 2]))
        rule = lenet_tf.keras.optimizer(K.Muon(0.05))
        with pytest.raises(UsageError, match="Muon multiplies matrices"):
            rule.build([variable])


def test_variables_of_lenet_tf_are_trained_too_and_constraints_are_kept() -> None:
    plain = tf.Variable(tf.fill([2], 2.0), name="a/b")
    layer = keras.layers.Dense(2, kernel_constraint="non_neg")
    layer.build([None, 1])
    model = lenet_tf.keras.model(layer)
    batch = {"weight": tf.ones([1])}
    with pytest.raises(UsageError, match="has a constraint, which other optimizers"):
        model(tf.ones([1, 1]), batch, True)
    rule = lenet_tf.keras.optimizer(K.SGD(1.0))
    variables = [plain, model.trainable_variables[0]]
    rule.build(variables)
    before = plain.numpy()
    rule.apply([tf.ones([2]), tf.fill([1, 2], 9.0)], variables, tf.constant(0))
    np.testing.assert_array_equal(plain, before - 1.0)
    np.testing.assert_array_equal(layer.kernel, [[0.0, 0.0]])
    model(tf.ones([1, 1]), batch, True)


def test_the_rate_can_be_set_in_a_run_and_is_resumed(tmp_path: object) -> None:
    """With loss scaling, so the update is inside of a condition."""

    def forward(model: tf.Module, batch: dict, training: bool) -> dict:
        return {"loss": tf.linalg.matvec(batch["x"], model.w)}

    def make() -> tuple[lenet_tf.Trainer, keras.optimizers.Optimizer]:
        strategy = make_strategy(2)
        with strategy.scope():
            model = tf.Module(name="point")
            model.w = tf.Variable(tf.zeros([6]))
            optimizer = K.SGD(0.5)
            rule = lenet_tf.keras.optimizer(optimizer)
        return lenet_tf.Trainer(
            model, rule, forward, strategy=strategy, loss_scaling=True
        ), optimizer

    def halve(moment: lenet_tf.Moment) -> None:
        optimizer.learning_rate = 0.25

    trainer, optimizer = make()
    batches = lenet_tf.Batches({"x": data()["x"]}, 22)
    trainer.fit(batches, epochs=1, saver=lenet_tf.Saver(tmp_path), actions=[halve])
    trainer, optimizer = make()
    trainer.fit(batches, epochs=2, saver=lenet_tf.Saver(tmp_path))
    assert optimizer.learning_rate.numpy() == 0.25
    expected = -(0.5 + 0.25) * data()["x"].mean(0)
    np.testing.assert_allclose(trainer.model.w.numpy(), expected, rtol=1e-5)
    with pytest.raises(UsageError, match="give the optimizer its schedule at first"):
        optimizer.learning_rate = K.schedules.CosineDecay(0.1, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: K.SGD(use_ema=True), "use_ema of SGD is True: give the Trainer ema"),
        (
            lambda: K.Adam(gradient_accumulation_steps=2),
            "give the Trainer micro_batches",
        ),
        (lambda: K.Adam(loss_scale_factor=8.0), "the Trainer loss_scaling=True"),
        (lambda: K.LossScaleOptimizer(K.SGD()), "its inner optimizer, and the Trainer"),
        (lambda: "adam", "is given a str: give one of keras.optimizers"),
    ],
)
def test_what_would_not_work_is_refused(make: Make, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        lenet_tf.keras.optimizer(make())
    assert "\n" not in str(error.value)


def test_an_optimizer_that_was_used_is_refused() -> None:
    optimizer = K.SGD()
    optimizer.build([keras.Variable(1.0)])
    with pytest.raises(UsageError, match="has its slots already"):
        lenet_tf.keras.optimizer(optimizer)


@pytest.mark.parametrize("schedule", [0.05, K.schedules.ExponentialDecay(0.05, 4, 0.5)])
def test_the_learning_rate_is_watched(schedule: object) -> None:
    model = lenet_tf.keras.model(
        keras.Sequential([keras.Input([6]), keras.layers.Dense(1)])
    )
    trainer = lenet_tf.Trainer(
        model,
        lenet_tf.keras.optimizer(K.SGD(schedule)),
        lenet_tf.keras.forward("mse"),
        watch=["learning_rate"],
    )
    history = trainer.fit(lenet_tf.Batches(data(), 8), steps=5, row_steps=1)
    rates = [schedule(s) if callable(schedule) else schedule for s in range(5)]
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)
