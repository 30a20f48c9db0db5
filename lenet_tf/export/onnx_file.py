"""Writes a model as an ONNX file, for ONNX Runtime and what else reads the format.

    image = tf.TensorSpec([None, 28, 28, 1], tf.uint8)
    onnx(model, "digits.onnx", Exported(classify, {"image": image}))

It needs the package tf2onnx, which `pip install 'lenet_tf[onnx]'` brings.
"""

from __future__ import annotations

import pathlib

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.export.writing import Exported, traced
from lenet_tf.files import first_line, make_folder, os_errors_as, replacing


def onnx(
    model: tf.Module, path: pathlib.Path | str, exported: Exported
) -> pathlib.Path:
    """Writes a function of a model as an ONNX file, whole or not at all.

    Inputs and outputs of the file have the names that they have in the function.

    Args:
      model: Model with the weights to export.
      path: File to write; an existing one is replaced.
      exported: Function, with the shapes and dtypes of its inputs. Sizes may be None,
        the number of axes must be known.

    Returns:
      The file.

    Raises:
      UsageError: tf2onnx is not installed, an input has an unknown number of axes or
        the name of an output, the function has operations that ONNX lacks, or the file
        cannot be written.
    """
    try:
        from onnx import checker
        from tf2onnx import convert
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed: run pip install 'lenet_tf[onnx]'"
        ) from error
    file, names = pathlib.Path(path), list(exported.inputs)
    for name, spec in exported.inputs.items():
        if spec.shape.rank is None:
            raise UsageError(
                f"{name} has an unknown number of axes: give a shape such as "
                "[None, 28, 28, 1], with None where a size may vary"
            )
    graph = traced(model, file.name, exported)
    if both := sorted({*names} & {*graph.structured_outputs}):
        raise UsageError(
            f"{', '.join(both)} is an input and an output: ONNX needs different names"
        )

    @tf.function(autograph=False)
    def by_position(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph(**dict(zip(names, tensors, strict=True)))

    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=name)
        for name, spec in exported.inputs.items()
    ]
    try:
        converted, _ = convert.from_function(by_position, specs)
        # The converter leaves operations that it does not know as they are.
        checker.check_model(converted, full_check=True)
    except Exception as error:  # whatever the converter and the checker raise
        raise UsageError(f"ONNX cannot hold it: {first_line(error)}") from error
    with os_errors_as(UsageError, f"{file} cannot be written"):
        make_folder(file.absolute().parent)
        with replacing(file) as temporary:
            temporary.write_bytes(converted.SerializeToString())
    return file
