"""Per-example losses [B], and the forward function of a classifier.

    values = classification(model, {"image": images, "label": labels}, training=True)
    values["loss"], values["accuracy"]    # [B] each

A custom experiment is one function of this form: it returns a dict of [B] values with
`loss` among them; the training loop weights, averages, differentiates and accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from lenet_tf.nn.images import standardize

Forward = Callable[[Any, Mapping[str, tf.Tensor], bool], dict[str, tf.Tensor]]


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Computes -log softmax(logits)[label], in nats.

    Args:
      logits: float [B, C].
      labels: integer [B], each in [0, C).
      smoothing: the share of the target that is spread over all classes alike.
        (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.)

    Returns:
      float [B].
    """
    labels = tf.cast(labels, tf.int32)
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    target = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    target = target * (1 - smoothing) + smoothing / logits.shape[1]
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def classification(
    model: Callable[..., tf.Tensor], batch: Mapping[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """Computes loss and accuracy of an image classifier for each example.

    Args:
      model: called as `model(images, training=training)`, returns logits [B, C].
      batch: `image` uint8 [B, H, W, C], standardized here to float32 [B, 32, 32, C],
        and `label` integer [B].
      training: handed on to the model.

    Returns:
      `loss` and `accuracy`, float32 [B] each.
    """
    logits = model(standardize(batch["image"]), training=training)
    return {
        "loss": softmax_cross_entropy(logits, batch["label"]),
        "accuracy": correct(logits, batch["label"]),
    }


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns 1.0 where the largest of logits [B, C] is at label [B], else 0.0: [B]."""
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.cast(tf.equal(predicted, tf.cast(labels, tf.int32)), tf.float32)


def confusion(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Marks for each example where it belongs in the confusion matrix.

    Args:
      logits: float [B, C].
      labels: integer [B].

    Returns:
      float32 [B, C, C], 1 at [label, predicted class]. Summed by the accumulators.
    """
    classes = logits.shape[1]
    predicted = tf.one_hot(tf.argmax(logits, axis=-1), classes)
    return tf.one_hot(labels, classes)[:, :, None] * predicted[:, None, :]
