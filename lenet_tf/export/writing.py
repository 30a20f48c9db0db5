"""Writes a model as a SavedModel, which loads where this library is not installed.

def classify(model, image):
    return {"probabilities": tf.nn.softmax(model(image))}

image = tf.TensorSpec([None, 28, 28, 1], tf.float32)
saved_model(model, "out", {"serving_default": Exported(classify, {"image": image})})
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.files import make_folder, os_errors_as
from lenet_tf.nn.fast_ops import plain_forms


@dataclasses.dataclass(frozen=True)
class Exported:
    """A function of a model, to be called by the name of its signature.

    Attributes:
      function: Function of the model and of tensors by name that returns a tensor, or
        a dict of tensors by name.
      inputs: Shapes and dtypes of the tensors by name; None for the size of a batch.
    """

    function: Callable[..., object]
    inputs: Mapping[str, tf.TensorSpec]


def saved_model(
    model: tf.Module, path: pathlib.Path | str, functions: Mapping[str, Exported]
) -> pathlib.Path:
    """Writes a model with functions of it as a SavedModel, whole or not at all.

    Args:
      model: Model with the weights to export. For the averaged weights of a run, give
        one that `restore_model` or `load_weights` has read from a checkpoint.
      path: Folder to write, which does not exist yet.
      functions: Signature name -> function. Servers call `serving_default` by default.

    Returns:
      The folder.

    Raises:
      UsageError: There is something in the folder, it cannot be written, there are no
        functions, or one returns something else than tensors.
    """
    folder = pathlib.Path(path)
    if not functions:
        raise UsageError("there are no functions: give one named 'serving_default'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: remove it, or name another folder")
    holder = tf.Module()
    holder.model = model
    signatures = {
        name: traced(model, name, exported) for name, exported in functions.items()
    }
    with os_errors_as(UsageError, f"{folder} cannot be written"):
        make_folder(folder.absolute().parent)
        temporary = tempfile.mkdtemp(prefix=".export-", dir=folder.absolute().parent)
    try:
        tf.saved_model.save(holder, temporary, signatures=signatures)
        with os_errors_as(UsageError, f"{folder} cannot be written"):
            os.chmod(temporary, 0o755)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def traced(
    model: tf.Module, name: str, exported: Exported
) -> tf.types.experimental.ConcreteFunction:
    """Returns the graph of a function, in TensorFlow's own operations."""

    def signature(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = exported.function(model, **inputs)
        named = outputs if isinstance(outputs, Mapping) else {"output": outputs}
        for key, value in named.items():
            if not tf.is_tensor(value):
                raise UsageError(
                    f"the function of {name!r} returned {value!r} as {key!r}: return a "
                    "tensor, or a dict of tensors"
                )
        return {key: tf.identity(value, name=key) for key, value in named.items()}

    specs = {
        key: tf.TensorSpec(spec.shape, spec.dtype, name=key)
        for key, spec in exported.inputs.items()
    }
    with plain_forms():
        return tf.function(signature, autograph=False).get_concrete_function(**specs)
