"""Batch normalization: the moments of the real examples of a global batch."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.nn import BatchNorm, Dense
from lenet_tf.parallel import make_strategy

EPSILON, MOMENTUM, RATE = 1e-3, 0.9, 0.05


class Network(tf.Module):
    """[B, 3] -> [B]: a layer, its normalization, a sum."""

    def __init__(self) -> None:
        super().__init__(name="network")
        self.dense = Dense(3, 4, (0, 1), "dense")
        self.norm = BatchNorm(4, MOMENTUM, EPSILON)

    def __call__(self, batch: dict, training: bool) -> tf.Tensor:
        x = self.norm(self.dense(batch["x"]), batch, training)
        return tf.reduce_sum(tf.tanh(x), axis=1)


def forward(model: Network, batch: dict, training: bool) -> dict:
    return {"loss": (model(batch, training) - batch["y"]) ** 2}


def data() -> dict[str, np.ndarray]:
    """67 examples, the first of them an outlier."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[67, 3]).astype(np.float32)
    x[0] = 100.0
    return {"x": x, "y": np.tanh(x[:, 0])}


def make(strategy: tf.distribute.Strategy) -> lenet_tf.Trainer:
    with strategy.scope():
        model = Network()
    return lenet_tf.Trainer(
        model, lenet_tf.SGD(RATE), forward, strategy=strategy, steps_per_loop=1
    )


def by_keras(epochs: int) -> list[np.ndarray]:
    """The same in eager TensorFlow and Keras's layer, on unpadded batches of 64."""
    model = Network()
    norm = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    norm.build([None, 4])
    arrays = data()
    for _ in range(epochs):
        for rows in (slice(0, 64), slice(64, 67)):
            variables = [model.dense.w, model.dense.b, *norm.trainable_variables]
            with tf.GradientTape() as tape:
                x = norm(model.dense(arrays["x"][rows]), training=True)
                y = tf.reduce_sum(tf.tanh(x), axis=1)
                loss = tf.reduce_mean((y - arrays["y"][rows]) ** 2)
            raw = [v if isinstance(v, tf.Variable) else v.value for v in variables]
            for variable, gradient in zip(raw, tape.gradient(loss, raw), strict=True):
                variable.assign_sub(RATE * gradient)
    ours = [model.dense.w, model.dense.b]
    state = [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
    return [np.asarray(v) for v in (*ours, *state)]


def numbers(model: Network) -> list[tf.Variable]:
    norm = model.norm
    state = [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
    return [model.dense.w, model.dense.b, *state]


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_weights_and_moving_averages_are_those_of_keras_without_padding(
    replicas: int,
) -> None:
    strategy = make_strategy(replicas)
    trainer = make(strategy)
    trainer.fit(lenet_tf.Batches(data(), 64), epochs=3)
    for variable, expected in zip(numbers(trainer.model), by_keras(3), strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-5)
        copies = strategy.experimental_local_results(variable)
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0])


def test_the_moving_mean_of_one_epoch_is_that_of_numpy() -> None:
    class Norm(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="only")
            self.norm = BatchNorm(3, MOMENTUM)

    def loss(model: Norm, batch: dict, training: bool) -> dict:
        return {"loss": tf.reduce_sum(model.norm(batch["x"], batch, training), axis=1)}

    strategy = make_strategy(2)
    with strategy.scope():
        model = Norm()
    trainer = lenet_tf.Trainer(model, lenet_tf.SGD(1e-6), loss, strategy=strategy)
    trainer.fit(lenet_tf.Batches(data(), 64), epochs=1)
    x = data()["x"].astype(np.float64)
    mean, variance = np.zeros(3), np.ones(3)
    for rows in (x[:64], x[64:]):
        mean = MOMENTUM * mean + (1 - MOMENTUM) * rows.mean(0)
        variance = MOMENTUM * variance + (1 - MOMENTUM) * rows.var(0)
    np.testing.assert_allclose(model.norm.moving_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(model.norm.moving_variance.numpy(), variance, rtol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_that_is_killed_resumes_bit_for_bit(
    replicas: int, tmp_path: pathlib.Path
) -> None:
    strategy = make_strategy(replicas)
    batches = lenet_tf.Batches(data(), 16, seed=0)
    whole = make(strategy)
    expected = whole.fit(batches, epochs=3, validation=batches)

    def kill(moment: lenet_tf.Moment) -> None:
        if moment.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saver = lenet_tf.Saver(tmp_path, steps=1)
        make(strategy).fit(
            batches, epochs=3, validation=batches, saver=saver, actions=[kill]
        )
    resumed = make(strategy)
    saver = lenet_tf.Saver(tmp_path)
    history = resumed.fit(batches, epochs=3, validation=batches, saver=saver)
    assert history == expected
    pairs = zip(numbers(whole.model), numbers(resumed.model), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_maps_are_normalized_over_their_pixels_too() -> None:
    norm = BatchNorm(2, epsilon=1e-6)
    maps = np.random.default_rng(0).normal(3, 2, [5, 4, 4, 2]).astype(np.float32)
    batch = {"weight": tf.constant([1.0, 2.0, 1.0, 0.0, 0.0])}
    y = norm(tf.constant(maps), batch, True).numpy()[:3]
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(UsageError, match="channels is 0"):
        BatchNorm(0)
    with pytest.raises(UsageError, match=r"has 3 channels.*\(2, 4\)"):
        BatchNorm(3)(tf.zeros([2, 4]), {"weight": tf.ones([2])}, True)
    with pytest.raises(UsageError, match="needs the weights"):
        BatchNorm(3)(tf.zeros([2, 3]), {}, True)
