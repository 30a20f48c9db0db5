"""Behaviour of lenet_tf.checkpoint.warm_start: weights of a run for another model."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.checkpoint import find_checkpoint, load_weights
from lenet_tf.errors import CheckpointError
from lenet_tf.train import Update


class Dense(tf.Module):
    """A layer, with a count that is not trained."""

    def __init__(self, inputs: int, outputs: int, value: float) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.fill([inputs, outputs], value))
        self.calls = tf.Variable(value, trainable=False)


class Net(tf.Module):
    """A body of two layers, a head, and a second name of the first layer."""

    def __init__(self, value: float, outputs: int = 1) -> None:
        super().__init__()
        self.body = tf.Module()
        self.body.layers = [Dense(2, 3, value), Dense(3, 3, value)]
        self.head = Dense(3, outputs, value)
        self.a_first = self.body.layers[0]  # its keys in checkpoints: model/a_first/...


def forward(model: Net, batch: dict, training: bool) -> dict:
    x = batch["x"]
    for layer in model.body.layers:
        x = tf.tanh(x @ layer.weights)
    return {"loss": tf.reduce_mean((x @ model.head.weights - batch["y"]) ** 2, 1)}


def batches() -> lenet_tf.Batches:
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(8, 2)
    return lenet_tf.Batches({"x": x, "y": x[:, :1]}, 4, seed=0)


def train(
    directory: pathlib.Path, replicas: int = 1, ema: float | None = None
) -> lenet_tf.Trainer:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Net(0.1)
    # Two updates in another order than that of the model's attributes.
    updates = {
        "head": Update(model.head, lenet_tf.SGD(0.3)),
        "body": Update(model.body, lenet_tf.SGD(0.1)),
    }
    trainer = lenet_tf.Trainer(model, updates, forward, strategy=strategy, ema=ema)
    data = batches()
    saver = lenet_tf.Saver(directory)
    trainer.fit(data, epochs=2, validation=data, saver=saver)
    model.head.calls.assign(7)
    return trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Net]:
    directory = tmp_path_factory.mktemp("plain")
    return directory, train(directory).model  # type: ignore[return-value]


@pytest.fixture(scope="module")
def averaged(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, lenet_tf.Trainer]:
    directory = tmp_path_factory.mktemp("averaged")
    return directory, train(directory, replicas=2, ema=0.5)


def weights_of(model: tf.Module) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_whole_model_gets_all_weights(
    plain: tuple[pathlib.Path, Net], replicas: int
) -> None:
    directory, trained = plain
    with lenet_tf.make_strategy(replicas).scope():
        model = Net(0.5)
    loaded = load_weights(model, directory)
    assert_same(weights_of(model), weights_of(trained))
    for variable in model.trainable_variables:  # on every replica
        for copy in getattr(variable, "values", [variable]):
            np.testing.assert_array_equal(copy, variable)
    assert len(loaded.taken) == 6
    assert (loaded.averaged, loaded.kept, loaded.left) == ((), (), ())
    assert loaded.path == find_checkpoint(directory, "best")
    assert load_weights(model, loaded.path) == loaded


def test_a_part_is_taken_also_where_its_keys_lie_elsewhere(
    plain: tuple[pathlib.Path, Net], caplog: pytest.LogCaptureFixture
) -> None:
    """The first layer of the body has its values under model/a_first."""
    directory, trained = plain
    model = Net(0.5, outputs=4)
    loaded = load_weights(model.body, directory, part="body", which="latest")
    assert_same(weights_of(model.body), weights_of(trained.body))
    np.testing.assert_array_equal(model.head.weights, np.full([3, 4], 0.5, "f4"))
    assert sorted(loaded.taken) == [
        "layers/0/calls",
        "layers/0/weights",
        "layers/1/calls",
        "layers/1/weights",
    ]
    layer = Dense(3, 3, 0.5)
    load_weights(layer, directory, part="body/layers/1")
    assert_same(weights_of(layer), weights_of(trained.body.layers[1]))


def test_what_only_one_side_has_is_named(
    plain: tuple[pathlib.Path, Net], caplog: pytest.LogCaptureFixture
) -> None:
    directory, trained = plain
    module = tf.Module()
    module.weights = tf.Variable(tf.zeros([3, 1]))
    module.bias = tf.Variable(5.0)
    loaded = load_weights(module, directory, part="head")
    np.testing.assert_array_equal(module.weights, trained.head.weights)
    assert loaded.taken == ("weights",)
    assert loaded.kept == ("bias",)
    assert loaded.left == ("model/head/calls",)
    assert float(module.bias) == 5
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line == (
        f"{loaded.path}: took 1 (weights); kept as they were 1 (bias); left in the "
        "checkpoint 1 (model/head/calls)"
    )


def test_averaged_weights_are_taken_by_name(
    averaged: tuple[pathlib.Path, lenet_tf.Trainer],
) -> None:
    """In the checkpoint the head's come first, those of variables not averaged raw."""
    directory, trainer = averaged
    raw = weights_of(trainer.model)
    with trainer.state.average.in_place():
        means = weights_of(trainer.model)
        head = trainer.model.head.weights.numpy()
    model = Net(0.5)
    loaded = load_weights(model, directory, which="latest")
    assert_same(weights_of(model), means)
    assert len(loaded.averaged) == 3
    assert float(model.head.calls) == np.float32(0.1)
    model = Net(0.5)
    load_weights(model.head, directory, part="head", which="latest", weights="averaged")
    np.testing.assert_array_equal(model.head.weights, head)
    loaded = load_weights(model, directory, which="latest", weights="raw")
    assert_same(weights_of(model), raw)
    assert loaded.averaged == ()


def test_a_trainer_that_is_there_evaluates_what_was_loaded(
    plain: tuple[pathlib.Path, Net],
) -> None:
    directory, _ = plain
    model = Net(0.5)
    load_weights(model, directory, which="latest")
    expected = lenet_tf.Trainer(model, lenet_tf.SGD(0.1), forward).evaluate(batches())
    after = lenet_tf.Trainer(Net(0.5), lenet_tf.SGD(0.1), forward, ema=0.9)
    load_weights(after.model, directory, which="latest", average=after.state.average)
    before = Net(0.5)
    load_weights(before, directory, which="latest")
    before_trainer = lenet_tf.Trainer(before, lenet_tf.SGD(0.1), forward, ema=0.9)
    for trainer in (after, before_trainer):
        assert trainer.evaluate(batches()) == expected
        trainer.fit(batches(), epochs=1)
    assert after.evaluate(batches()) == before_trainer.evaluate(batches())


def half(model: Net) -> Net:
    model.head.weights = tf.Variable(tf.zeros([3, 1], tf.float16))
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: load_weights(Net(0.5, outputs=4), run),
            r"differs for head/weights \(float32 \[3, 1\], in the module float32 "
            r"\[3, 4\]\); .* load_weights\(model.body, run, part='body'\)",
        ),
        (lambda run: load_weights(half(Net(0.5)), run), "in the module float16"),
        (
            lambda run: load_weights(Dense(2, 3, 0.5), run),
            "no variable fits: the module has calls, weights, and the checkpoint model",
        ),
        (
            lambda run: load_weights(Net(0.5), run, part="trunk"),
            "part is 'trunk', but its model has a_first, body, head",
        ),
        (lambda run: load_weights(Net(0.5), run, weights="mean"), "'averaged' or"),
        (lambda run: load_weights(Net(0.5), run, weights="averaged"), "weights='raw'"),
        (lambda run: load_weights(Net(0.5), run, which="last"), "'latest' or 'best'"),
        (lambda run: load_weights(tf.Module(), run), "has no variables yet"),
        (
            lambda run: load_weights(Net(0.5), run / "none"),
            "is neither the directory of a run nor a checkpoint",
        ),
        (
            lambda run: load_weights(
                Net(0.5),
                run,
                average=lenet_tf.optim.Average([tf.Variable(1.0)], 0.9),
            ),
            "average is of other variables",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    plain: tuple[pathlib.Path, Net], call: Callable, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        call(plain[0])
    assert "\n" not in str(error.value)


def test_nothing_is_changed_when_something_does_not_fit(
    plain: tuple[pathlib.Path, Net],
) -> None:
    model = Net(0.5, outputs=4)
    with pytest.raises(CheckpointError):
        load_weights(model, plain[0])
    assert all((w == np.float32(0.5)).all() for w in weights_of(model))


def test_a_run_without_validation_has_no_best(tmp_path: pathlib.Path) -> None:
    trainer = lenet_tf.Trainer(Net(0.1), lenet_tf.SGD(0.1), forward)
    trainer.fit(batches(), epochs=1, saver=lenet_tf.Saver(tmp_path))
    with pytest.raises(CheckpointError, match="choose which='latest'"):
        load_weights(Net(0.5), tmp_path)
    load_weights(Net(0.5), tmp_path, which="latest")
