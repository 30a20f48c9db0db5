"""Per-example losses are those of Keras with `reduction="none"`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf.keras
from lenet_tf.errors import UsageError

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(4), 5).astype(np.float32)
LABELS = RNG.integers(0, 4, 5)
MAPS = RNG.normal(size=[5, 3, 3, 2]).astype(np.float32)
L = keras.losses


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred"),
    [
        (L.MeanSquaredError(), RNG.normal(size=[5, 4]), PROBABILITIES),
        (L.Huber(0.2), RNG.normal(size=[5, 4]), PROBABILITIES),
        (L.SparseCategoricalCrossentropy(), LABELS, PROBABILITIES),
        (L.SparseCategoricalCrossentropy(), LABELS[:, None], PROBABILITIES),
        (
            L.CategoricalCrossentropy(label_smoothing=0.1, reduction="sum"),
            np.eye(4)[LABELS],
            PROBABILITIES,
        ),
        (L.BinaryCrossentropy(True), LABELS > 1, PROBABILITIES[:, :1]),
        (L.KLDivergence(), PROBABILITIES[::-1], PROBABILITIES),
        (L.MeanAbsoluteError(), MAPS[::-1], MAPS),
        (L.Dice(axis=(1, 2, 3)), MAPS[::-1] > 0, MAPS),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_loss_is_that_of_keras_without_reduction(
    loss: keras.losses.Loss, y_true: np.ndarray, y_pred: np.ndarray
) -> None:
    ours = lenet_tf.keras.loss(loss)(tf.constant(y_true), tf.constant(y_pred))
    loss.reduction = "none"
    theirs = np.asarray(loss(y_true, y_pred))
    theirs = theirs.mean(tuple(range(1, theirs.ndim)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert ours.shape == [5]
    assert ours.dtype == tf.float32


def test_names_and_functions_are_losses_too_also_in_half_precision() -> None:
    y_true, y_pred = tf.constant(LABELS), tf.constant(PROBABILITIES)
    expected = -np.log(PROBABILITIES[np.arange(5), LABELS])
    for loss in (
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
    ):
        values = lenet_tf.keras.loss(loss)(y_true, y_pred)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    values = lenet_tf.keras.loss("mse")(tf.zeros([5]), tf.zeros([5, 1], tf.bfloat16))
    assert values.dtype == tf.float32
    assert values.shape == [5]  # not [5, 5]
    hits = lenet_tf.keras.loss(keras.metrics.sparse_categorical_accuracy)
    np.testing.assert_array_equal(
        hits(y_true, y_pred), PROBABILITIES.argmax(1) == LABELS
    )


def test_masked_places_do_not_count() -> None:
    words = tf.constant([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 2, mask_zero=True)(words)
    values = lenet_tf.keras.loss("mse")(tf.zeros([2, 4, 2]), embedded)
    squares = (embedded.numpy() ** 2).mean(-1)
    np.testing.assert_allclose(values, [squares[0, :2].mean(), squares[1, 0]], 1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("msee", "'msee' is no loss of Keras"),
        (keras.metrics.MeanSquaredError(), "is not computed for each example"),
        pytest.param(
            getattr(keras.losses, "Circle", lambda: None)(),
            "Circle compares the examples",
            marks=pytest.mark.skipif(
                not hasattr(keras.losses, "Circle"), reason="Keras is older"
            ),
        ),
    ],
)
def test_what_is_no_loss_of_examples_is_refused(loss: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        lenet_tf.keras.loss(loss)
    assert "\n" not in str(error.value)


def test_a_loss_that_averages_by_itself_is_refused() -> None:
    loss = lenet_tf.keras.loss(lambda y, p: tf.reduce_mean((y - p) ** 2))
    with pytest.raises(UsageError, match="must keep them apart"):
        loss(tf.zeros([5]), tf.zeros([5]))


class Scaled(keras.losses.Loss):
    """A loss that does not tell its option in a configuration."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self.factor * tf.reduce_mean(tf.abs(y_true - y_pred), axis=-1)


def test_a_loss_of_ones_own_keeps_its_options() -> None:
    one, other = RNG.normal(size=[2, 5, 4]).astype(np.float32)
    found = lenet_tf.keras.loss(Scaled(10.0))(tf.constant(one), tf.constant(other))
    np.testing.assert_allclose(found, 10 * np.abs(one - other).mean(1), rtol=1e-6)
    huber = lenet_tf.keras.loss(keras.losses.Huber(0.1))
    single = [[0.0]], [[4.0]]
    assert float(huber(*map(tf.constant, single))[0]) == pytest.approx(0.395, rel=1e-5)
