"""Slots and averages belong to their variables, whatever the order of updates."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.checkpoint import find_checkpoint, restore_model
from lenet_tf.errors import CheckpointError
from lenet_tf.nn import Dense
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Update


class Stack(tf.Module):
    """Four layers, three of which have the same shape."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(name="stack")
        self.first = Dense(3, 3, (seed, 1), "first")
        self.second = Dense(3, 3, (seed, 2), "second")
        self.third = Dense(3, 3, (seed, 3), "third")
        self.last = Dense(3, 1, (seed, 4), "last")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for layer in (self.first, self.second, self.third):
            x = tf.nn.tanh(layer(x))
        return self.last(x)[:, 0]


def forward(model: Stack, batch: dict, training: bool) -> dict:
    return {"loss": (model(batch["x"]) - batch["y"]) ** 2}


def batches() -> lenet_tf.Batches:
    x = np.random.default_rng(0).normal(size=[30, 3]).astype(np.float32)
    return lenet_tf.Batches({"x": x, "y": np.sin(x.sum(axis=1))}, 8, seed=0)


def updates(model: Stack, order: str) -> dict[str, Update]:
    pair = [model.third, model.second]
    if order == "turned list":
        pair.reverse()
    made = {
        "pair": Update(pair, lenet_tf.SGD(0.1, momentum=0.9)),
        "others": Update([model.last, model.first], lenet_tf.Adam(0.01)),
    }
    if order == "frozen":
        del made["others"]
    return dict(reversed(made.items())) if order == "turned dict" else made


def trainer(
    order: str = "", replicas: int = 1, ema: float | None = 0.9
) -> lenet_tf.Trainer:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = Stack()
    made = updates(model, order)
    return lenet_tf.Trainer(model, made, forward, strategy=strategy, ema=ema)


def fit(one: lenet_tf.Trainer, folder: pathlib.Path, epochs: int = 2) -> None:
    saver = lenet_tf.Saver(folder, best="loss")
    one.fit(batches(), epochs=epochs, saver=saver)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("order", ["", "frozen"])
def test_restored_averages_are_those_that_were_evaluated(
    order: str, replicas: int, tmp_path: pathlib.Path
) -> None:
    one = trainer(order, replicas)
    fit(one, tmp_path)
    averaged, raw = Stack(seed=7), Stack(seed=7)
    path = find_checkpoint(tmp_path)
    restore_model(averaged, path)
    restore_model(raw, path, weights="raw")
    plain = [
        lenet_tf.Trainer(model, lenet_tf.SGD(0.1), forward) for model in (averaged, raw)
    ]
    values = [each.evaluate(batches())["loss"] for each in (one, *plain)]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert abs(values[2] - values[0]) > 1e-3 * values[0]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (
            "turned list",
            "'pair' are second/b, second/w, third/b, third/w, but were third",
        ),
        ("turned dict", "shape or dtype differs for average/averages"),
    ],
)
def test_a_run_does_not_go_on_in_another_order(
    order: str, message: str, tmp_path: pathlib.Path
) -> None:
    fit(trainer(), tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fit(trainer(order), tmp_path, epochs=3)


def test_the_keys_of_the_weights_are_those_of_the_model(tmp_path: pathlib.Path) -> None:
    fit(trainer(), tmp_path)
    keys = [key for key, _ in tf.train.list_variables(find_checkpoint(tmp_path))]
    assert sum(key.startswith("model/") for key in keys) == 8
    assert sum(key.startswith("average/averages/") for key in keys) == 8
    assert not [key for key in keys if "_variables" in key]


def test_the_order_of_updates_does_not_matter_without_an_average(
    tmp_path: pathlib.Path,
) -> None:
    weights = []
    for order in ("", "turned dict"):
        fit(trainer(ema=None), tmp_path / order)
        one = trainer(order, ema=None)
        fit(one, tmp_path / order, epochs=3)
        weights.append([v.numpy() for v in one.model.variables])
    np.testing.assert_equal(weights[0], weights[1])
