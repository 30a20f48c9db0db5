"""Behaviour of lenet_tf.nn.losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.nn.distortion import Distortion
from lenet_tf.nn.images import scale_pixels, standardize
from lenet_tf.nn.losses import (
    classification,
    correct,
    distorted_classification,
    softmax_cross_entropy,
)
from lenet_tf.nn.random import uniform


def reference(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes -log softmax in float64, for logits of moderate size."""
    wide = logits.astype(np.float64)
    log_sum = np.log(np.exp(wide).sum(axis=1))
    return log_sum - wide[np.arange(len(labels)), labels]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_cross_entropy_is_minus_log_softmax_at_the_label(dtype: type) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=[50, 10]).astype(np.float32)
    labels = rng.integers(0, 10, [50]).astype(dtype)
    loss = softmax_cross_entropy(tf.constant(logits), tf.constant(labels))
    assert loss.shape == (50,)
    np.testing.assert_allclose(loss, reference(logits, labels), rtol=1e-5)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes() -> None:
    loss = softmax_cross_entropy(tf.zeros([1, 10]), tf.constant([3]))
    assert float(loss[0]) == pytest.approx(np.log(10))


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    logits = tf.constant([[1e4, 0.0], [1e4, 0.0]])
    loss = softmax_cross_entropy(logits, tf.constant([0, 1]))
    np.testing.assert_array_equal(loss, [0.0, 1e4])


def test_cross_entropy_has_softmax_minus_one_hot_as_its_gradient() -> None:
    logits = tf.constant(np.random.default_rng(0).normal(size=[4, 3]), tf.float32)
    labels = tf.constant([0, 2, 1, 1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(softmax_cross_entropy(logits, labels))
    powers = np.exp(logits.numpy())
    expected = powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[labels.numpy()]
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-6)


class Corner(tf.Module):
    """Two logits: the first pixel of the digit itself, and 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tf.TensorShape, tf.DType, bool]] = []

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """Computes the logits, and notes how it was called."""
        self.seen.append((images.shape, images.dtype, training))
        pixel = images[:, 2, 2, 0]  # 28x28 lies at (2, 2) of 32x32
        return tf.stack([pixel, tf.fill(tf.shape(pixel), 0.5)], axis=1)


@pytest.mark.parametrize("training", [True, False])
def test_classification_standardizes_images_and_hands_training_on(
    training: bool,
) -> None:
    model = Corner()
    images = np.zeros([3, 28, 28, 1], np.uint8)
    classification(model, {"image": images, "label": tf.zeros([3], tf.int32)}, training)
    assert model.seen == [((3, 32, 32, 1), tf.float32, training)]


class Noisy(tf.Module):
    """Two logits, random ones in training."""

    @tf.function
    def __call__(
        self,
        images: tf.Tensor,
        training: bool = False,
        batch: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Computes the logits."""
        if training:
            return uniform(batch, [2], salt=0)
        return tf.zeros([tf.shape(images)[0], 2])


def test_classification_hands_the_batch_to_a_model_that_takes_it() -> None:
    batch = {
        "image": tf.zeros([3, 28, 28, 1], tf.uint8),
        "label": tf.zeros([3], tf.int32),
        "position": tf.range(3),
        "seed": tf.constant([1, 2], tf.int64),
    }
    noisy = classification(Noisy(), batch, True)["loss"]
    assert len(set(noisy.numpy())) == 3
    np.testing.assert_allclose(
        classification(Noisy(), batch, False)["loss"], np.log([2, 2, 2]), rtol=1e-6
    )


def test_lenet5_with_dropout_trains_with_the_default_forward_function(
    digits: dict[str, np.ndarray],
) -> None:
    model = lenet_tf.LeNet5(dropout=0.3)
    history = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3)).fit(
        lenet_tf.Batches(digits, 32), epochs=3
    )
    assert history["loss"][-1] < history["loss"][0]


def test_distorted_classification_distorts_and_smooths_in_training_only() -> None:
    forward = distorted_classification(Distortion(shift=2), smoothing=0.2)
    images = np.random.default_rng(0).integers(0, 256, [5, 28, 28, 1], np.uint8)
    batch = {
        "image": tf.constant(images),
        "label": tf.zeros([5], tf.int32),
        "position": tf.range(5),
        "seed": tf.constant([1, 2], tf.int64),
    }
    model = Corner()
    plain, evaluated = classification(model, batch, False), forward(model, batch, False)
    np.testing.assert_array_equal(evaluated["loss"], plain["loss"])
    moved = Distortion(shift=2)(batch, scale_pixels(images))
    logits = model(standardize(moved), training=True)
    np.testing.assert_array_equal(
        forward(model, batch, True)["loss"],
        softmax_cross_entropy(logits, batch["label"], 0.2),
    )
    assert model.seen[-1] == ((5, 32, 32, 1), tf.float32, True)


def test_classification_returns_loss_and_accuracy_of_each_example() -> None:
    images = np.zeros([3, 28, 28, 1], np.uint8)
    images[0] = 255
    labels = np.array([0, 0, 1], np.int32)
    batch = {"image": tf.constant(images), "label": tf.constant(labels)}
    values = classification(Corner(), batch, False)
    logits = np.array([[1, 0.5], [0, 0.5], [0, 0.5]])
    assert set(values) == {"loss", "accuracy"}
    np.testing.assert_array_equal(values["accuracy"], [1, 0, 1])
    np.testing.assert_allclose(values["loss"], reference(logits, labels), rtol=1e-6)
    assert values["loss"].dtype == values["accuracy"].dtype == tf.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_that_of_keras(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=[20, 7]).astype(np.float32)
    labels = rng.integers(0, 7, [20])
    expected = keras.losses.categorical_crossentropy(
        np.eye(7, dtype=np.float32)[labels],
        logits,
        from_logits=True,
        label_smoothing=smoothing,
    )
    ours = softmax_cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_does_not_train_in_silence(label: int) -> None:
    loss = softmax_cross_entropy(tf.zeros([2, 3]), tf.constant([1, label]), 0.1)
    assert np.isnan(loss.numpy()).tolist() == [False, True]


@pytest.mark.parametrize("function", [softmax_cross_entropy, correct])
def test_labels_that_are_no_integers_are_refused(function: Callable) -> None:
    with pytest.raises(UsageError, match=r"^the labels are float32: give integers"):
        function(tf.zeros([2, 3]), tf.constant([0.9, 1.0]))
