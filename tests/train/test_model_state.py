"""A model's own state is exact, or refused before the first step."""

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.parallel import make_strategy

MEAN = tf.VariableAggregation.MEAN
NONE = tf.VariableAggregation.NONE


class Normalized(tf.Module):
    """A line over inputs, less their moving mean."""

    def __init__(self, aggregation: tf.VariableAggregation, nested: bool) -> None:
        super().__init__(name="normalized")
        self.w = tf.Variable(1.0, name="w")
        self.mean = tf.Variable(
            0.0, trainable=False, name="mean", aggregation=aggregation
        )
        self.count = tf.Variable(0, trainable=False, name="count")
        self.nested = nested

    def note(self, x: tf.Tensor, weight: tf.Tensor | None) -> None:
        total = tf.reduce_sum(weight) if weight is not None else float(x.shape[0])
        weighted = x if weight is None else x * weight
        mean = tf.math.divide_no_nan(tf.reduce_sum(weighted), total)
        self.mean.assign(0.9 * self.mean + 0.1 * mean)

    def __call__(self, batch: dict, training: bool, weighted: bool) -> tf.Tensor:
        if training:
            note = tf.function(self.note) if self.nested else self.note
            note(batch["x"], batch["weight"] if weighted else None)
            self.count.assign_add(1)
        return self.w * (batch["x"] - self.mean)


def train(
    replicas: int,
    examples: int,
    *,
    aggregation: tf.VariableAggregation = NONE,
    weighted: bool = False,
    nested: bool = False,
) -> lenet_tf.Trainer:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = Normalized(aggregation, nested)

    def forward(model: Normalized, batch: dict, training: bool) -> dict:
        return {"loss": model(batch, training, weighted) ** 2}

    trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.01), forward, strategy=strategy)
    x = np.arange(examples, dtype=np.float32)
    trainer.fit(lenet_tf.Batches({"x": x}, 8), epochs=1)
    return trainer


@pytest.mark.parametrize("nested", [False, True])
def test_state_that_replicas_would_change_apart_is_refused(nested: bool) -> None:
    with pytest.raises(
        lenet_tf.UsageError, match=r"mean is changed.* 2 copies"
    ) as error:
        train(2, 16, nested=nested)
    assert "2 copies" in str(error.value)
    assert "aggregation=tf.VariableAggregation.MEAN" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("replicas", "examples"), [(1, 20), (3, 16)], ids=["ragged", "uneven"]
)
def test_state_that_padding_would_enter_is_refused(
    replicas: int, examples: int
) -> None:
    with pytest.raises(lenet_tf.UsageError, match=r"mean is changed.*padding"):
        train(replicas, examples, aggregation=MEAN)


def test_state_with_a_rule_is_alike_on_all_replicas() -> None:
    model = train(2, 16, aggregation=MEAN).model
    copies = [float(v.numpy()) for v in model.mean.values]
    # Means of the batches 0..7 and 8..15.
    assert copies == pytest.approx([0.09 * 3.5 + 0.1 * 11.5] * 2, rel=1e-6)
    assert [int(v.numpy()) for v in model.count.values] == [2, 2]


def test_state_that_uses_the_weights_may_meet_padding() -> None:
    model = train(1, 20, weighted=True).model
    mean = 0.0
    for first, last in ((0, 8), (8, 16), (16, 20)):
        mean = 0.9 * mean + 0.1 * np.arange(first, last).mean()
    assert float(model.mean.numpy()) == pytest.approx(mean, rel=1e-6)


def test_one_replica_with_whole_batches_needs_no_rule() -> None:
    model = train(1, 16).model
    assert float(model.mean.numpy()) == pytest.approx(0.09 * 3.5 + 0.1 * 11.5)
    assert int(model.count.numpy()) == 2
