"""What of Keras would not be exact is refused in one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
import lenet_tf.keras
from lenet_tf.errors import UsageError
from lenet_tf.parallel import make_strategy

layers = keras.layers


def sequential(*parts: keras.Layer, shape: tuple[int, ...] = (4,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *parts, layers.Dense(1)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "network", "is given a str"),
        (lambda: keras.Sequential([layers.Dense(1)]), "has no variables yet"),
        (lambda: layers.Dense(1), "begin it with a keras.Input, or call it once"),
        (
            lambda: keras.Sequential(
                [keras.Input([3, 4], batch_size=2), layers.GRU(2, stateful=True)]
            ),
            r"GRU 'gru.*' keeps a state .* stateful=False",
        ),
    ],
)
def test_a_model_that_cannot_be_exact_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        lenet_tf.keras.model(make())
    assert "\n" not in str(error.value)


def test_a_model_made_outside_the_strategy_is_refused() -> None:
    model = lenet_tf.keras.model(sequential())
    with pytest.raises(UsageError, match="kernel:0 was made outside the strategy"):
        lenet_tf.Trainer(
            model,
            lenet_tf.SGD(0.1),
            lenet_tf.keras.forward("mse"),
            strategy=make_strategy(2),
        )


class Sampling(keras.Layer):
    """Draws from Keras's global generator."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + keras.random.normal(keras.ops.shape(x))


class Penalized(keras.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.add_loss(tf.reduce_mean(x))
        return x


class Mean(keras.Layer):
    """Keeps a moving mean of what it sees."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always

    def build(self, shape: object) -> None:
        self.mean = self.add_weight(name="mean", trainable=False, initializer="zeros")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training or self.always:
            self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(x))
        return x - self.mean


def call(network: keras.Model, training: bool = True, rows: int = 2) -> tf.Tensor:
    batch = {
        "weight": tf.ones([2]),
        "position": tf.range(2),
        "seed": tf.zeros([2], tf.int64),
    }
    x = tf.ones([rows, *network.input_shape[1:]])
    return lenet_tf.keras.model(network)(x, batch, training)


@pytest.mark.parametrize(
    ("parts", "shape", "message"),
    [
        (
            [layers.RandomFlip(name="flip")],
            (4, 4, 3),
            "RandomFlip 'flip' draws random numbers .* lenet_tf.nn.uniform",
        ),
        ([layers.LSTM(2, dropout=0.5)], (3, 4), "LSTMCell .* draws random numbers"),
        ([Sampling()], (4,), "draws from Keras's global random generator"),
        ([Penalized()], (4,), "adds a loss of its own"),
        ([layers.ActivityRegularization(l2=0.1)], (4,), "adds a loss of its own"),
        (
            [layers.Dropout(0.5, noise_shape=[1, 4])],
            (4,),
            "its first entry must be None",
        ),
    ],
    ids=lambda value: None,
)
def test_what_a_call_would_do_is_refused_before_any_step(
    parts: list[keras.Layer], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        call(sequential(*parts, shape=shape))
    assert "\n" not in str(error.value)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UsageError, match="is changed outside of training"):
        call(sequential(Mean(always=True)), training=False)
    with pytest.raises(UsageError, match="gets 6 rows for a batch of 2"):
        call(sequential(layers.BatchNormalization()), rows=6)
    model = lenet_tf.keras.model(sequential(layers.Dropout(0.5)))
    with pytest.raises(UsageError, match="is trained without a batch"):
        model(tf.ones([2, 4]), training=True)
    with pytest.raises(UsageError, match="needs the batch that forward was given"):
        model(tf.ones([2, 4]), {}, True)


def test_what_neither_draws_nor_keeps_anything_passes() -> None:
    attention = layers.MultiHeadAttention(2, 3, dropout=0.5)
    inputs = keras.Input([3, 4])
    x = attention(inputs, inputs)  # its dropout is a layer inside of it
    x = layers.Bidirectional(layers.LSTM(2))(layers.LayerNormalization()(x))
    network = keras.Model(inputs, layers.Dense(1)(layers.GroupNormalization(2)(x)))
    np.testing.assert_array_equal(call(network), call(network))
    assert not np.allclose(call(network), network(tf.ones([2, 3, 4])))


def test_state_of_other_layers_is_judged_by_the_trainer() -> None:
    def train(replicas: int, examples: int, part: keras.Layer) -> keras.Model:
        strategy = make_strategy(replicas)
        with strategy.scope():
            network = keras.Sequential([keras.Input([4]), part, layers.Dense(1)])
            model = lenet_tf.keras.model(network)
        trainer = lenet_tf.Trainer(
            model,
            lenet_tf.SGD(0.1),
            lenet_tf.keras.forward("mse"),
            strategy=strategy,
        )
        x = np.ones([examples, 4], np.float32)
        batches = lenet_tf.Batches({"x": x, "y": x[:, :1]}, 4)
        trainer.start(batches)
        return network

    strategy = make_strategy(2)
    with strategy.scope():
        mean, spectral = Mean(), layers.SpectralNormalization(layers.Dense(3))
    with pytest.raises(UsageError, match=r"mean is changed.* 2 copies"):
        train(2, 8, mean)
    with pytest.raises(UsageError, match=r"mean is changed.*padding"):
        train(1, 6, Mean())
    train(1, 8, Mean())
    train(2, 8, spectral)  # its state depends on the weights alone


def test_sums_over_replicas_within_parts_of_a_batch_are_refused() -> None:
    strategy = make_strategy(2)
    with strategy.scope():
        model = lenet_tf.keras.model(sequential(layers.BatchNormalization()))
    trainer = lenet_tf.Trainer(
        model,
        lenet_tf.SGD(0.1),
        lenet_tf.keras.forward("mse"),
        strategy=strategy,
        jit_compile=True,
    )
    x = np.ones([8, 4], np.float32)
    with pytest.raises(UsageError, match="needs sums over all replicas") as error:
        trainer.fit(lenet_tf.Batches({"x": x, "y": x[:, :1]}, 4), epochs=1)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="Keras is older")
def test_layers_that_are_computed_twice_are_refused() -> None:
    with keras.RematScope(mode="full"):
        network = sequential(layers.Dropout(0.5))
    with pytest.raises(UsageError, match="is computed twice"):
        lenet_tf.keras.model(network)


def test_another_backend_is_refused() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import lenet_tf.keras"],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert "set the environment variable KERAS_BACKEND=tensorflow" in finished.stderr


def test_layers_that_are_frozen_between_two_fits_are_refused() -> None:
    network = sequential(layers.Dense(3))
    trainer = lenet_tf.Trainer(
        lenet_tf.keras.model(network), lenet_tf.SGD(0.1), lenet_tf.keras.forward("mse")
    )
    data = {"x": np.ones([8, 4], "f"), "y": np.ones([8, 1], "f")}
    trainer.fit(lenet_tf.Batches(data, 4), epochs=1)
    network.layers[0].trainable = False
    with pytest.raises(UsageError, match="when the trainer was made: make another"):
        trainer.fit(lenet_tf.Batches(data, 4), epochs=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lenet_tf.keras.forward({"a": "mse"}), "a forward function of its own"),
        (lambda: lenet_tf.keras.forward("mse", metrics=["mae"]), "give names, as in"),
        (
            lambda: lenet_tf.keras.forward("accuracy"),
            "a function such as keras.metrics",
        ),
        (
            lambda: lenet_tf.Update([tf.Variable(1.0)], keras.optimizers.Adam(0.1)),
            r"lenet_tf\.keras\.optimizer",
        ),
        (
            lambda: lenet_tf.Update(layers.Dense(1, name="x"), lenet_tf.SGD(0.1)),
            "no trainable variables",
        ),
        (
            lambda: lenet_tf.Update(
                sequential(layers.Dense(3)).trainable_variables, lenet_tf.SGD(0.1)
            ),
            r"lenet_tf\.keras\.model",
        ),
    ],
)
def test_what_is_not_wrapped_is_refused_with_the_wrapper(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_model_of_several_outputs_needs_its_own_forward() -> None:
    inputs = keras.Input([4])
    network = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(2)(inputs)])
    trainer = lenet_tf.Trainer(
        lenet_tf.keras.model(network), lenet_tf.SGD(0.1), lenet_tf.keras.forward("mse")
    )
    data = {"x": np.ones([8, 4], "f"), "y": np.ones([8, 1], "f")}
    with pytest.raises(UsageError, match="several outputs, a list: write a forward"):
        trainer.fit(lenet_tf.Batches(data, 4), epochs=1)
