"""Writes a model as a file for LiteRT, formerly TensorFlow Lite, of small devices.

image = tf.TensorSpec([1, 28, 28, 1], tf.float32)
litert(model, "digits.tflite", Exported(classify, {"image": image}))
litert(model, "int8.tflite", Exported(classify, {"image": image}), examples=images)
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.export.writing import Exported, traced
from lenet_tf.files import first_line, make_folder, os_errors_as, replacing


def litert(
    model: tf.Module,
    path: pathlib.Path | str,
    exported: Exported,
    examples: Iterable[Mapping[str, np.ndarray]] | None = None,
) -> pathlib.Path:
    """Writes a function of a model as a LiteRT file, whole or not at all.

    Args:
      model: Model with the weights to export.
      path: File to write; an existing one is replaced.
      exported: Function, with the shapes and dtypes of its inputs, all known.
      examples: Inputs by name, some hundred of them, that are like those to come. With
        them weights and activations become int8; inputs and outputs stay as they are.
        Without them all stays float32.

    Returns:
      The file.

    Raises:
      UsageError: The converter refuses the function, an example lacks an input, or the
        file cannot be written.
    """
    file = pathlib.Path(path)
    graph = traced(model, file.name, exported)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], model)
    if examples is not None:
        names = list(exported.inputs)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _in_order(examples, names)
    try:
        content = converter.convert()
    except UsageError:
        raise
    except Exception as error:  # whatever the converter raises
        raise UsageError(f"LiteRT cannot hold it: {first_line(error)}") from error
    with os_errors_as(UsageError, f"{file} cannot be written"):
        make_folder(file.absolute().parent)
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    return file


def _in_order(
    examples: Iterable[Mapping[str, np.ndarray]], names: list[str]
) -> Iterator[list[np.ndarray]]:
    for example in examples:
        missing = [name for name in names if name not in example]
        if missing:
            raise UsageError(f"an example lacks {', '.join(missing)}: give all inputs")
        yield [np.asarray(example[name]) for name in names]
