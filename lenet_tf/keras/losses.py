"""Losses and metrics of Keras as functions of examples.

    loss = lenet_tf.keras.loss("mse")
    loss(y_true, y_pred)                  # [B]

Keras averages over the rows of one replica, padding included. Here every example keeps
its own value, and the trainer averages over the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf
from keras.src.losses.losses import LossFunctionWrapper

from lenet_tf.errors import UsageError
from lenet_tf.keras.models import KerasModel
from lenet_tf.nn.losses import Forward

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
KerasLoss: TypeAlias = str | keras.losses.Loss | PerExample
Names: TypeAlias = str | Sequence[str]

_COMPARING = getattr(keras.losses, "Circle", ())  # none in the oldest Keras


def loss(keras_loss: KerasLoss) -> PerExample:
    """Makes a function from targets and predictions to per-example losses.

    Args:
      keras_loss: Object such as `keras.losses.MeanSquaredError()`, whose `reduction` is
        ignored; a function (y_true, y_pred) -> [B, ...], such as those of
        `keras.metrics`; or a name that `keras.losses.get` knows.

    Returns:
      Function (y_true, y_pred) -> float [B]. It computes in the dtype of the Keras
      object, by default float32, also for predictions in half precision. If the loss
      has more axes, such as one for pixels, an example's loss is the mean over them. If
      the prediction has a Keras mask, the mean is over the unmasked places.

    Raises:
      UsageError: The loss is unknown, or is not computed for each example.
    """
    if isinstance(keras_loss, str):
        try:
            keras_loss = keras.losses.get(keras_loss)
        except ValueError as error:
            raise UsageError(
                f"{keras_loss!r} is no loss of Keras: give a name such as 'mse', a "
                "keras.losses.Loss, or a function such as "
                "keras.metrics.sparse_categorical_accuracy"
            ) from error
    if isinstance(keras_loss, _COMPARING):
        raise UsageError(
            "the loss Circle compares the examples of a batch with each other, but "
            "replicas divide them: choose a loss that is computed for each example"
        )
    if isinstance(keras_loss, keras.losses.Loss):
        # Not copy.copy, by which Keras makes it anew from a configuration that may lack
        # some of its options.
        whole = object.__new__(type(keras_loss))
        vars(whole).update(vars(keras_loss), reduction="none")
    elif callable(keras_loss) and not isinstance(keras_loss, keras.metrics.Metric):
        whole = LossFunctionWrapper(keras_loss, reduction="none", name="loss")
    else:
        raise UsageError(
            f"{keras_loss!r} is not computed for each example: give a function, such "
            "as keras.metrics.sparse_categorical_accuracy, or a keras.losses.Loss; a "
            "model with several outputs needs a forward function of its own"
        )

    def per_example(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        values = whole(y_true, y_pred)
        size = y_pred.shape[0]
        if values.shape.rank == 0 or values.shape[0] != size:
            raise UsageError(
                f"the loss {getattr(keras_loss, 'name', keras_loss)} is of shape "
                f"{values.shape} for {size} examples: it must keep them apart"
            )
        axes = list(range(1, values.shape.rank))
        mask = getattr(y_pred, "_keras_mask", None)
        if not axes or mask is None:
            return tf.reduce_mean(values, axes)
        kept = tf.broadcast_to(tf.cast(mask, values.dtype), tf.shape(values))
        total = tf.reduce_sum(values, axes)  # Keras has set what is masked to 0
        return tf.math.divide_no_nan(total, tf.reduce_sum(kept, axes))

    return per_example


def forward(
    keras_loss: KerasLoss,
    *,
    x: Names = "x",
    y: str = "y",
    metrics: Mapping[str, KerasLoss] | None = None,
) -> Forward:
    """Makes the forward function of a model with one output.

    Args:
      keras_loss: Loss; see `loss`.
      x: Name of the batch entry that is the model's input; or a list of names, for a
        model that takes a list.
      y: Name of the entry with the targets.
      metrics: Name -> function or loss, as for `loss`.

    Returns:
      Function for a `Trainer` whose model is a `KerasModel`. Its loss includes the
      regularizers of the weights.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise UsageError(
            f"metrics is {metrics!r}: give names, as in {{'accuracy': "
            "keras.metrics.sparse_categorical_accuracy}"
        )
    functions = {"loss": loss(keras_loss)}
    functions |= {name: loss(metric) for name, metric in (metrics or {}).items()}

    def run(
        model: tf.Module, batch: Mapping[str, tf.Tensor], training: bool
    ) -> dict[str, tf.Tensor]:
        if not isinstance(model, KerasModel):
            raise UsageError(
                f"the model is a {type(model).__name__}: this forward function takes "
                "lenet_tf.keras.model(...)"
            )
        inputs = batch[x] if isinstance(x, str) else [batch[name] for name in x]
        outputs = model(inputs, batch, training)
        if not tf.is_tensor(outputs):
            raise UsageError(
                f"the model has several outputs, a {type(outputs).__name__}: write a "
                "forward function for it, with a loss of each"
            )
        values = {name: f(batch[y], outputs) for name, f in functions.items()}
        values["loss"] += tf.cast(model.penalty(), values["loss"].dtype)
        return values

    return run
