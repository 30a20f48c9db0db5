"""Networks of Keras: the same on any number of replicas, saved and resumed."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import batches, data, network, state_of, trainer
from programs import run

import lenet_tf
import lenet_tf.keras
from lenet_tf.keras.layers import make_exact, on_batch
from lenet_tf.parallel import make_strategy


@pytest.fixture(scope="module")
def on_two() -> lenet_tf.Trainer:
    """Three epochs on two replicas."""
    whole = trainer(make_strategy(2))
    whole.fit(batches(), epochs=3)
    return whole


@pytest.mark.parametrize("replicas", [1, 4])
def test_weights_and_moving_averages_do_not_depend_on_the_replicas(
    on_two: lenet_tf.Trainer, replicas: int
) -> None:
    other = trainer(make_strategy(replicas))
    history = other.fit(batches(), epochs=3)
    for a, b in zip(state_of(on_two), state_of(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    losses = on_two.record.history()["loss"]
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    assert other.traces == {"train": 1, "evaluate": 0}


def test_all_replicas_have_the_same_copies(on_two: lenet_tf.Trainer) -> None:
    slots = on_two.state.updates["optimizer"].optimizer.slots
    for variable in (*on_two.model.variables, *slots):
        first, second = variable.values
        np.testing.assert_array_equal(first, second)


def test_a_run_killed_in_another_process_is_resumed_bit_for_bit(
    on_two: lenet_tf.Trainer, tmp_path: pathlib.Path
) -> None:
    script = pathlib.Path(__file__).with_name("killed_run.py")
    assert run(str(script), str(tmp_path)).status == 7
    keras.layers.Dense(3)  # here Keras has counted other layers before
    resumed = trainer(make_strategy(2))
    history = resumed.fit(batches(), epochs=3, saver=lenet_tf.Saver(tmp_path))
    assert history == on_two.record.history()
    for a, b in zip(state_of(on_two), state_of(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_keras_model_saves_and_predicts_with_the_trained_weights(
    on_two: lenet_tf.Trainer, tmp_path: pathlib.Path
) -> None:
    trained = on_two.model.keras_model
    trained.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for a, b in zip(trained.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = network().get_weights()[0]
    assert not np.allclose(trained.get_weights()[0], fresh)
    x = data()["x"]
    prediction = on_two.model(x)
    np.testing.assert_allclose(prediction, loaded(x), atol=1e-6)
    for layer in loaded.layers:
        assert "call" not in vars(layer)


def test_the_module_exports_as_any_other(
    on_two: lenet_tf.Trainer, tmp_path: pathlib.Path
) -> None:
    model = on_two.model
    spec = tf.TensorSpec([None, 6], tf.float32)
    serve = tf.function(lambda x: model(x), input_signature=[spec])
    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": serve})
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    (served,) = loaded(tf.constant(data()["x"])).values()
    np.testing.assert_allclose(served, model(data()["x"]), atol=1e-6)


class Nested(keras.Model):
    """A subclassed model with a model and a list of layers inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.Sequential(
            [keras.layers.Dense(5), keras.layers.Dropout(0.5)]
        )
        self.noises = [keras.layers.Dropout(0.5), keras.layers.AlphaDropout(0.5)]

    def call(self, inputs: dict, training: bool = False) -> tf.Tensor:
        x = self.inner(inputs["a"] + inputs["b"], training=training)
        for noise in self.noises:
            x = noise(x, training=training)
        return x


def batch(positions: range, step: int = 0) -> dict[str, tf.Tensor]:
    return {
        "weight": tf.ones([len(positions)]),
        "position": tf.constant(list(positions), tf.int32),
        "seed": tf.constant([0, step], tf.int64),
    }


def test_draws_depend_on_step_and_example_only_also_deep_inside() -> None:
    inputs = {"a": tf.ones([6, 3]), "b": tf.ones([6, 3])}
    nested = Nested()
    nested(inputs)
    model = lenet_tf.keras.model(nested)
    whole = model(inputs, batch(range(6)), True)
    half = model({k: v[3:] for k, v in inputs.items()}, batch(range(3, 6)), True)
    np.testing.assert_array_equal(whole[3:], half)
    again = model(inputs, batch(range(6)), True)
    np.testing.assert_array_equal(whole, again)
    assert not np.allclose(whole, model(inputs, batch(range(6), step=1), True))
    np.testing.assert_array_equal(model(inputs), nested(inputs))
    assert not np.allclose(nested(inputs, training=True), whole)  # as in Keras


def test_two_calls_in_a_step_draw_different_numbers() -> None:
    layer = keras.Sequential([keras.Input([50]), keras.layers.Dropout(0.5)])
    model, shared = lenet_tf.keras.model(layer), batch(range(4))
    x = tf.ones([4, 50])
    first, second = model(x, shared, True), model(x, dict(shared), True)
    assert 0.2 < np.mean((first == 0) == (second == 0)) < 0.8


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.Dropout(0.25), [40, 50]),
        (keras.layers.Dropout(0.25, noise_shape=[None, 1, 50]), [40, 4, 50]),
        (keras.layers.SpatialDropout1D(0.25), [40, 4, 50]),
        (keras.layers.SpatialDropout2D(0.25), [40, 2, 2, 50]),
        (keras.layers.SpatialDropout3D(0.25), [40, 2, 1, 2, 50]),
        (keras.layers.AlphaDropout(0.25), [40, 50]),
        (keras.layers.GaussianNoise(0.5), [40, 50]),
        (keras.layers.GaussianDropout(0.2), [40, 50]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_noise_has_the_distribution_of_keras(
    layer: keras.Layer, shape: list[int]
) -> None:
    x = tf.random.stateless_normal(shape, [1, 2], 1.0, 1.0)
    theirs = layer(x, training=True).numpy()
    make_exact([layer])
    with on_batch(batch(range(40))):
        ours = layer(x, training=True).numpy()
        np.testing.assert_array_equal(layer(x, training=False), x)
    for statistic in (np.mean, np.std):
        assert statistic(ours) == pytest.approx(statistic(theirs), abs=0.12)
    assert np.mean(ours == 0) == pytest.approx(np.mean(theirs == 0), abs=0.05)
    if len(shape) > 2:  # the places of a channel are dropped together
        flat = ours.reshape(40, -1, 50) == 0
        assert (flat == flat[:, :1]).all()


@pytest.mark.parametrize("axis", [-1, 1])
def test_moments_are_those_of_the_real_and_unmasked_places(axis: int) -> None:
    layer = keras.layers.BatchNormalization(axis=axis, momentum=0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, [5, 4, 4]).astype(np.float32)
    x[3:] = np.nan  # padding
    layer.build(x.shape)
    model = lenet_tf.keras.model(layer)
    padded = {"weight": tf.constant([1.0, 2.0, 0.5, 0.0, 0.0])}
    model(tf.constant(x), padded, True)
    axes = (0, 1) if axis == -1 else (0, 2)
    real = x[:3].astype(np.float64)
    np.testing.assert_allclose(layer.moving_mean, real.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, real.var(axes), rtol=1e-5)
    if axis == -1:
        mask = rng.random([5, 4]) < 0.5
        with on_batch(padded):
            layer(tf.constant(x), training=True, mask=tf.constant(mask))
        np.testing.assert_allclose(layer.moving_mean, real[mask[:3]].mean(0), rtol=1e-5)


def test_frozen_layers_are_not_trained_and_keep_their_moving_averages() -> None:
    net = network(rate=0)
    net.layers[1].trainable = net.layers[2].trainable = False
    model = lenet_tf.keras.model(net)
    assert len(model.trainable_variables) == 2
    holder = tf.Module()
    holder.model = model
    assert len(holder.trainable_variables) == 2
    before = net.get_weights()
    model(data()["x"], batch(range(22)), True)
    for a, b in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    net.layers[1].trainable = True
    with pytest.raises(lenet_tf.UsageError, match="were frozen or made trainable"):
        model(data()["x"], batch(range(22)), True)


def test_copies_that_fit_of_keras_left_apart_become_alike() -> None:
    with make_strategy(2).scope():
        layer = keras.layers.BatchNormalization()
        layer.build([None, 3])
    layer.moving_mean.value.values[1].assign(tf.ones([3]))
    lenet_tf.keras.model(layer)
    np.testing.assert_array_equal(*layer.moving_mean.value.values)


def test_several_inputs_are_taken_by_their_names() -> None:
    a, b = keras.Input([2]), keras.Input([2])
    net = keras.Model([a, b], keras.layers.Dense(1)(a - b))
    x = {"a": tf.ones([3, 2]), "b": tf.zeros([3, 2])}
    forward = lenet_tf.keras.forward("mae", x=["a", "b"], y="target")
    entries = {**x, "target": tf.zeros([3, 1])}
    values = forward(lenet_tf.keras.model(net), entries, False)
    np.testing.assert_allclose(values["loss"], abs(net([x["a"], x["b"]]))[:, 0])


def test_names_in_checkpoints_do_not_depend_on_what_was_built_before() -> None:
    first = list(lenet_tf.keras.model(network()).weights)
    keras.layers.Dense(1)
    assert list(lenet_tf.keras.model(network()).weights) == first
    assert first[:2] == ["dense:kernel", "dense:bias"]
    assert first[-2:] == ["dense_1:kernel", "dense_1:bias"]


def test_regularizers_of_weights_are_in_the_loss_or_missed() -> None:
    net = keras.Sequential(
        [keras.Input([6]), keras.layers.Dense(1, kernel_regularizer="l2")]
    )
    model = lenet_tf.keras.model(net)
    kernel = net.get_weights()[0]
    assert float(model.penalty()) == pytest.approx(0.01 * (kernel**2).sum(), rel=1e-6)
    values = lenet_tf.keras.forward("mse")(
        model, {k: tf.constant(v) for k, v in data().items()} | batch(range(22)), True
    )
    error = ((net(data()["x"]) - data()["y"]).numpy() ** 2).mean(1)
    np.testing.assert_allclose(values["loss"], error + float(model.penalty()), 1e-5)

    def without(model: tf.Module, batch: dict, training: bool) -> dict:
        return {"loss": (model(batch["x"], batch, training) - batch["y"])[:, 0] ** 2}

    forgetful = lenet_tf.Trainer(
        lenet_tf.keras.model(net), lenet_tf.SGD(0.1), without, steps_per_loop=1
    )
    with pytest.raises(lenet_tf.UsageError, match=r"return loss \+ model\.penalty"):
        forgetful.fit(batches(), epochs=1)


def test_a_background_save_holds_the_weights_of_its_step(
    tmp_path: pathlib.Path,
) -> None:
    whole = trainer(make_strategy(1))
    whole.fit(batches(), epochs=1, saver=lenet_tf.Saver(tmp_path, background=True))
    resumed = trainer(make_strategy(1))
    resumed.fit(batches(), epochs=1, saver=lenet_tf.Saver(tmp_path))
    for a, b in zip(state_of(whole), state_of(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
