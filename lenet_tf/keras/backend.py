"""Refuses other backends of Keras than TensorFlow, before anything else is imported."""

from __future__ import annotations

import os

from lenet_tf.errors import UsageError


def _backend() -> str:
    # The variable is read first: without that backend's packages the import fails.
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    import keras

    return keras.config.backend()


if _backend() != "tensorflow":
    raise UsageError(
        f"the backend of Keras is {_backend()!r}: set the environment variable "
        "KERAS_BACKEND=tensorflow"
    )
