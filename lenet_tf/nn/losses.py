"""Per-example losses [B], and the forward function of a classifier.

    values = classification(model, {"image": images, "label": labels}, training=True)
    values["loss"], values["accuracy"]    # [B] each

A custom experiment is one function of this form, `Forward`: it returns a dict of [B]
values, `loss` among them. The trainer weights and averages them, and differentiates
the loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.distortion import Distortion
from lenet_tf.nn.images import scale_pixels, standardize

# (model, batch, training) -> per-example values.
Forward = Callable[[tf.Module, Mapping[str, tf.Tensor], bool], Mapping[str, tf.Tensor]]


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Computes -log softmax(logits)[label], in nats.

    Args:
      logits: Logits, float [B, C].
      labels: Labels, integer [B], each in [0, C).
      smoothing: Share of the target that is spread evenly over all classes, in [0, 1):
        Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.

    Returns:
      float [B]. A label out of its range is an error, or NaN (on GPUs, under XLA, and
      with smoothing).

    Raises:
      UsageError: The labels are not integers.
    """
    labels = _integers(labels)
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    target = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    target = target * (1 - smoothing) + smoothing / logits.shape[1]
    # A label that is no class must not train in silence, as a target without it would.
    known = (labels >= 0) & (labels < logits.shape[1])
    target = tf.where(known[:, None], target, float("nan"))
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def classification(
    model: Callable[..., tf.Tensor], batch: Mapping[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """Computes loss and accuracy of an image classifier for each example.

    Args:
      model: Model that returns logits [B, C] when it is called as
        `model(images, training=training)`; a model with an argument `batch`, such as
        one with dropout, gets the batch too.
      batch: Batch with `image`, [B, H, W, C], which `standardize` makes float32
        [B, 32, 32, C], and `label`, integer [B].
      training: Whether the values are for training.

    Returns:
      `loss` and `accuracy`, float32 [B] each.
    """
    return _classify(model, batch, training, Distortion(), 0.0)


def distorted_classification(distortion: Distortion, smoothing: float = 0.0) -> Forward:
    """Makes a `classification` that distorts images and smooths labels in training.

    Args:
      distortion: Random distortion of the training images.
      smoothing: Label smoothing in training; see `softmax_cross_entropy`.
    """

    def forward(
        model: tf.Module, batch: Mapping[str, tf.Tensor], training: bool
    ) -> dict[str, tf.Tensor]:
        return _classify(model, batch, training, distortion, smoothing)

    return forward


def _classify(
    model: Callable[..., tf.Tensor],
    batch: Mapping[str, tf.Tensor],
    training: bool,
    distortion: Distortion,
    smoothing: float,
) -> dict[str, tf.Tensor]:
    images, labels = batch["image"], batch["label"]
    if training and not distortion.is_identity():
        images = distortion(batch, scale_pixels(images))
    whole = {"batch": batch} if "batch" in inspect.signature(model).parameters else {}
    logits = model(standardize(images), training=training, **whole)
    return {
        "loss": softmax_cross_entropy(logits, labels, smoothing if training else 0.0),
        "accuracy": correct(logits, labels),
    }


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Compares predictions with labels.

    Args:
      logits: Logits, float [B, C].
      labels: Labels, integer [B].

    Returns:
      float32 [B], 1.0 where the largest logit is that of the label, else 0.0.

    Raises:
      UsageError: The labels are not integers.
    """
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.cast(tf.equal(predicted, _integers(labels)), tf.float32)


def confusion(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Marks the cell of the confusion matrix that each example belongs to.

    Args:
      logits: Logits, float [B, C].
      labels: Labels, integer [B].

    Returns:
      float32 [B, C, C], 1 at [label, predicted class] of each example, else 0. The sum
      over the examples, which `Trainer.evaluate` returns, is the confusion matrix.
    """
    classes = logits.shape[1]
    predicted = tf.one_hot(tf.argmax(logits, axis=-1), classes)
    return tf.one_hot(labels, classes)[:, :, None] * predicted[:, None, :]


def _integers(labels: tf.Tensor) -> tf.Tensor:
    """Returns labels as int32.

    Raises:
      UsageError: They are not integers, of which a cast would cut off a part.
    """
    labels = tf.convert_to_tensor(labels)
    if not (labels.dtype.is_integer or labels.dtype.is_bool):
        raise UsageError(
            f"the labels are {labels.dtype.name}: give integers, as by "
            "tf.cast(labels, tf.int32)"
        )
    return tf.cast(labels, tf.int32)
