"""Sonnet's modules as they are: the weights of Sonnet's own loop, or a refusal."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

import lenet_tf
from lenet_tf.parallel import make_strategy

N = 22
RNG = np.random.default_rng(0)
ARRAYS = {
    "x": RNG.normal(size=[N, 5, 5, 2]).astype(np.float32),
    "words": RNG.integers(0, 7, [N, 4]),
    "label": RNG.integers(0, 3, [N]),
}
Examples = Mapping[str, Any]
Make = Callable[[], snt.Module]


class Perceptron(snt.Module):
    """Of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = snt.Sequential([snt.Flatten(), snt.nets.MLP([6, 3])])

    def __call__(self, batch: Examples, is_training: bool) -> tf.Tensor:
        return self.layers(batch["x"])


class Normalized(snt.Module):
    """A convolution of images, whose features are normalized."""

    def __init__(self, make_norm: Make) -> None:
        super().__init__(name="normalized")
        self.conv = snt.Conv2D(4, 3)
        self.norm = make_norm()
        self.output = snt.Linear(3)

    def __call__(self, batch: Examples, is_training: bool) -> tf.Tensor:
        maps = self.conv(batch["x"])
        own = () if isinstance(self.norm, snt.LayerNorm) else (is_training,)
        maps = tf.nn.relu(self.norm(maps, *own))
        return self.output(tf.reduce_mean(maps, axis=[1, 2]))


class Reader(snt.Module):
    """An LSTM over embedded words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.core = snt.Embed(7, 4), snt.LSTM(5)
        self.output = snt.Linear(3)

    def __call__(self, batch: Examples, is_training: bool) -> tf.Tensor:
        inputs = tf.transpose(self.embed(batch["words"]), [1, 0, 2])
        state = self.core.initial_state(inputs.shape[1])
        outputs, _ = snt.dynamic_unroll(self.core, inputs, state)
        return self.output(outputs[-1])


def batch_norm() -> snt.Module:
    return snt.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)


def cross_replica_batch_norm() -> snt.Module:
    mean, variance = [
        snt.ExponentialMovingAverage(0.9, name=f"moving_{name}")
        for name in ("mean", "variance")
    ]
    return snt.distribute.CrossReplicaBatchNorm(True, True, mean, variance)


def layer_norm() -> snt.Module:
    return snt.LayerNorm(-1, create_scale=True, create_offset=True)


MODELS: dict[str, Make] = {
    "mlp": Perceptron,
    "layer norm": lambda: Normalized(layer_norm),
    "embed and lstm": Reader,
    "batch norm": lambda: Normalized(batch_norm),
}


def forward(model: snt.Module, batch: Examples, training: bool) -> dict[str, tf.Tensor]:
    logits = model(batch, training)
    return {"loss": lenet_tf.softmax_cross_entropy(logits, batch["label"])}


def first_replica(next_creator: Callable[..., tf.Variable], **kwargs) -> tf.Variable:
    """Makes variables whose copies are all assigned the same value."""
    kwargs["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return next_creator(**kwargs)


def build(
    strategy: tf.distribute.Strategy, make: Make, alike: bool = False
) -> snt.Module:
    """Makes a model and its variables."""
    tf.random.set_seed(1)
    one = {k: tf.constant(v[:1]) for k, v in ARRAYS.items()}
    with strategy.scope():
        if not alike:
            model = make()
            model(one, False)
            return model
        with tf.variable_creator_scope(first_replica):
            model = make()
            # Outside of a replica, CrossReplicaBatchNorm cannot be called.
            tf.function(lambda: strategy.run(model, args=(one, False)))()
            return model


def trainer(
    strategy: tf.distribute.Strategy, model: snt.Module, **options: Any
) -> lenet_tf.Trainer:
    rule = lenet_tf.SGD(0.1, momentum=0.9)
    return lenet_tf.Trainer(model, rule, forward, strategy=strategy, **options)


def batches(batch_size: int, examples: int = N) -> lenet_tf.Batches:
    arrays = {k: v[:examples] for k, v in ARRAYS.items()}
    return lenet_tf.Batches(arrays, batch_size)


@functools.cache
def by_sonnets_own_loop(name: str, batch_size: int, examples: int) -> snt.Module:
    """A model after two epochs of the training loop of Sonnet's documentation."""
    model = build(make_strategy(1), MODELS[name])
    optimizer = snt.optimizers.Momentum(0.1, 0.9)
    for first in 2 * list(range(0, examples, batch_size)):
        last = min(first + batch_size, examples)
        batch = {k: tf.constant(v[first:last]) for k, v in ARRAYS.items()}
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(forward(model, batch, True)["loss"])
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        # Of an embedding Sonnet would update the momentum of the batch's words only.
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.apply(dense, variables)
    return model


def values(model: snt.Module) -> Iterator[np.ndarray]:
    return (v.numpy() for v in model.variables)


@pytest.mark.parametrize("name", ["mlp", "layer norm", "embed and lstm"])
def test_a_model_gets_the_weights_of_sonnets_own_loop(
    name: str, strategy: tf.distribute.Strategy
) -> None:
    model = build(strategy, MODELS[name])
    trainer(strategy, model).fit(batches(8), epochs=2)  # of 8, 8 and 6 examples
    reference = by_sonnets_own_loop(name, 8, N)
    for ours, theirs in zip(values(model), values(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_batch_norm_on_one_replica_without_padding_is_that_of_sonnets_own_loop() -> (
    None
):
    strategy = make_strategy(1)
    model = build(strategy, MODELS["batch norm"])
    trainer(strategy, model).fit(batches(10, 20), epochs=2)
    reference = by_sonnets_own_loop("batch norm", 10, 20)
    for ours, theirs in zip(values(model), values(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_cross_replica_batch_norm_is_the_same_on_any_replicas_without_padding() -> None:
    def trained(replicas: int) -> list[np.ndarray]:
        strategy = make_strategy(replicas)
        model = build(strategy, lambda: Normalized(cross_replica_batch_norm), True)
        trainer(strategy, model).fit(batches(8, 16), epochs=2)
        return list(values(model))

    runs = [trained(replicas) for replicas in (1, 2, 4)]
    for other in runs[1:]:
        for ours, theirs in zip(other, runs[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("replicas", "make_norm", "alike", "batch_size", "message"),
    [
        (2, batch_norm, False, 8, r"hidden is changed .*aggregation=.*one replica"),
        (2, cross_replica_batch_norm, True, 10, "all rows of a batch.*are padding"),
        (1, batch_norm, False, 10, "all rows of a batch.*a batch size that divides"),
    ],
)
def test_statistics_that_would_be_wrong_are_refused(
    replicas: int, make_norm: Make, alike: bool, batch_size: int, message: str
) -> None:
    strategy = make_strategy(replicas)
    model = build(strategy, lambda: Normalized(make_norm), alike)
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        trainer(strategy, model).fit(batches(batch_size, 16), epochs=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "replicas"), [("layer norm", 2), ("batch norm", 1)])
def test_a_run_that_was_stopped_is_resumed_bit_for_bit(
    name: str, replicas: int, tmp_path: pathlib.Path
) -> None:
    data = lenet_tf.Batches({k: v[:20] for k, v in ARRAYS.items()}, 4, seed=0)

    def run(
        actions: tuple[lenet_tf.Action, ...] = (), saver: lenet_tf.Saver | None = None
    ) -> list[np.ndarray]:
        strategy = make_strategy(replicas)
        model = build(strategy, MODELS[name])
        one = trainer(strategy, model, steps_per_loop=1)
        one.fit(data, epochs=2, actions=actions, saver=saver)
        return list(values(model))

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step == 7:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run((stop,), lenet_tf.Saver(tmp_path, steps=1))
    resumed = run(saver=lenet_tf.Saver(tmp_path))
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [snt.optimizers.SGD, snt.optimizers.Adam])
def test_sonnets_optimizers_are_refused_with_one_of_ours(kind: Any) -> None:
    model = build(make_strategy(1), Perceptron)
    message = r"optimizer is (SGD|Adam)\(.*which has no build\(\): give .*Adam\(1e-3\)"
    with pytest.raises(lenet_tf.UsageError, match=message):
        lenet_tf.Trainer(model, kind(0.1), forward)


class Late(snt.Module):
    """Has a variable from the start, and others from the first call on."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.layer = tf.Variable(1.0), snt.Linear(3)

    def __call__(self, batch: Examples, is_training: bool) -> tf.Tensor:
        return self.layer(self.scale * snt.flatten(batch["x"]))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("make", "message"),
    [(Perceptron, "has no trainable variables"), (Late, "the variable '[bw]' would")],
)
def test_a_model_that_has_not_been_called_is_refused_with_the_remedy(
    replicas: int, make: Make, message: str
) -> None:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = make()
    remedy = r".*must be called once, on one example, in strategy.scope\(\)"
    with pytest.raises(lenet_tf.UsageError, match=message + remedy) as error:
        trainer(strategy, model).fit(batches(8), epochs=1)
    assert "\n" not in str(error.value)
