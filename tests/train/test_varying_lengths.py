"""Training on texts of different lengths, padded to buckets."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.errors import UsageError

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 12, 50)
TEXTS = [RNG.integers(1, 20, n) for n in LENGTHS]
LABELS = np.array([text.max() % 2 for text in TEXTS], np.int32)
BUCKETS = {"text": (3, 6, 12)}
PADDED = np.array([np.pad(text, [0, 12 - len(text)]) for text in TEXTS])


class Attention(tf.Module):
    """Attends to the characters of a text, and classifies it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(
            tf.random.stateless_uniform([20, 8], seed=[0, 1]) - 0.5
        )
        self.query = tf.Variable(tf.random.stateless_uniform([8, 1], seed=[0, 2]))
        self.output = lenet_tf.nn.Dense(8, 2, (0, 3))

    def __call__(self, text: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        features = tf.gather(self.table, text)  # [B, L, 8]
        mask = tf.sequence_mask(length, tf.shape(text)[1], tf.float32)
        score = (features @ self.query)[..., 0] + (mask - 1) * 1e9
        return self.output(tf.reduce_sum(tf.nn.softmax(score)[..., None] * features, 1))


def forward(model: Attention, batch: Any, training: bool) -> dict[str, tf.Tensor]:
    logits = model(batch["text"], batch["text_length"])
    return {"loss": lenet_tf.softmax_cross_entropy(logits, batch["label"])}


def batches(kind: str = "texts") -> lenet_tf.Batches:
    if kind == "padded by hand":
        data = {"text": PADDED, "text_length": LENGTHS.astype(np.int32)}
        return lenet_tf.Batches({**data, "label": LABELS}, 8, seed=4)
    data = {"text": TEXTS, "label": LABELS}
    if kind == "stream":
        ragged = tf.ragged.constant([t.tolist() for t in TEXTS], tf.int64)
        stream = tf.data.Dataset.from_tensor_slices({**data, "text": ragged})
        return lenet_tf.Batches(stream, 8, buckets=BUCKETS)
    return lenet_tf.Batches(data, 8, seed=4, buckets=BUCKETS)


def trainer(replicas: int = 1, **settings: Any) -> lenet_tf.Trainer:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Attention()
    return lenet_tf.Trainer(
        model, lenet_tf.Adam(0.01), forward, strategy=strategy, **settings
    )


def weights(made: lenet_tf.Trainer) -> list[np.ndarray]:
    return [variable.numpy() for variable in made.model.trainable_variables]


@pytest.fixture(scope="module")
def reference() -> list[np.ndarray]:
    made = trainer()
    made.fit(batches("padded by hand"), epochs=3)
    return weights(made)


@pytest.mark.parametrize(
    ("replicas", "settings"),
    [(1, {}), (2, {}), (4, {}), (2, {"micro_batches": 2})],
    ids=["1", "2", "4", "micro-batches"],
)
def test_a_model_that_masks_learns_what_it_learns_of_longer_padding(
    replicas: int, settings: dict, reference: list[np.ndarray]
) -> None:
    made = trainer(replicas, **settings)
    made.fit(batches(), epochs=3, validation=batches())
    for ours, theirs in zip(weights(made), reference, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)
    assert made.traces == {"train": 1, "evaluate": 1}


@pytest.mark.parametrize("kind", ["texts", "stream"])
def test_a_resumed_run_ends_with_the_same_bits(
    kind: str, tmp_path: pathlib.Path
) -> None:
    whole = trainer(2, steps_per_loop=100)
    whole.fit(batches(kind), epochs=3)
    for steps in (5, 9):
        first = trainer(2, steps_per_loop=3)
        first.fit(batches(kind), steps=steps, saver=lenet_tf.Saver(tmp_path))
    resumed = trainer(2, steps_per_loop=7)
    resumed.fit(batches(kind), epochs=3, saver=lenet_tf.Saver(tmp_path))
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_predictions_are_those_of_each_text_alone() -> None:
    made = trainer(2)
    data = lenet_tf.Batches({"text": TEXTS, "label": LABELS}, 8, buckets=BUCKETS)

    def logits(model: Attention, batch: Any) -> tf.Tensor:
        return model(batch["text"], batch["text_length"])

    alone = [made.model(t[None], tf.constant([len(t)]))[0].numpy() for t in TEXTS]
    np.testing.assert_allclose(made.predict(data, logits), alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="all axes must be known"):
        made.predict(data, lambda model, batch: tf.gather(model.table, batch["text"]))
