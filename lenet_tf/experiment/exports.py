"""Exports the network of a run.

    export_run("runs/mnist", "exported", which="best")
    export_litert("runs/mnist", "digits.tflite", int8=True)
    export_onnx("runs/mnist", "digits.onnx")

The network comes with the preparation of the images, so its input are images as the
dataset has them: uint8, of 28x28 pixels for MNIST.
"""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

from lenet_tf.experiment.network import load_network
from lenet_tf.export.litert_file import litert
from lenet_tf.export.onnx_file import onnx
from lenet_tf.export.writing import Exported, saved_model
from lenet_tf.nn.images import standardize
from lenet_tf.nn.lenet import LeNet5

_IMAGES_FOR_INT8 = 500


def export_run(
    workdir: pathlib.Path | str, path: pathlib.Path | str, which: str = "best"
) -> pathlib.Path:
    """Writes the network of a run as a SavedModel.

    Its signature `serving_default` takes `image`, uint8 [N, H, W] or [N, H, W, C], and
    returns `probabilities`, float32 [N, classes], and `class`, int64 [N]; `logits`
    takes the same and returns `logits`, float32 [N, classes]. If the run has a moving
    average of the weights, the averaged weights are exported.

    Args:
      workdir: Directory of the run.
      path: Folder to write, which does not exist yet.
      which: Checkpoint of the run, "best" or "latest".

    Returns:
      The folder.

    Raises:
      UsageError: The directory holds no run or no such checkpoint, or the folder exists
        or cannot be written.
    """
    network = load_network(workdir, which)
    height, width, channels = network.splits.image_shape

    def logits_of(model: LeNet5, image: tf.Tensor) -> tf.Tensor:
        tf.debugging.assert_equal(
            tf.shape(image)[1:3], [height, width], "image must be [N, H, W] or [..., C]"
        )
        images = tf.reshape(image, [tf.shape(image)[0], height, width, channels])
        return tf.cast(model(standardize(images)), tf.float32)

    def classify(model: LeNet5, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return _classes(logits_of(model, image))

    def logits(model: LeNet5, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": logits_of(model, image)}

    any_rank = {"image": tf.TensorSpec(None, tf.uint8)}
    return saved_model(
        network.model,
        path,
        {
            "serving_default": Exported(classify, any_rank),
            "logits": Exported(logits, any_rank),
        },
    )


def export_litert(
    workdir: pathlib.Path | str,
    path: pathlib.Path | str,
    which: str = "best",
    int8: bool = False,
) -> pathlib.Path:
    """Writes the network of a run as a LiteRT file, for one image at a time.

    Its input is `image`, float32 [1, H, W, C], with pixels in [0, 1]; its output is
    `probabilities`, float32 [1, classes].

    Args:
      workdir: Directory of the run.
      path: File to write; an existing one is replaced.
      which: Checkpoint of the run, "best" or "latest".
      int8: Whether weights and activations are int8, by 500 training images.

    Returns:
      The file.

    Raises:
      UsageError: The directory holds no run or no such checkpoint, or the file cannot
        be written.
    """
    network = load_network(workdir, which)

    def classify(model: LeNet5, image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.cast(model(standardize(image)), tf.float32)
        return {"probabilities": tf.nn.softmax(logits)}

    examples: list[dict[str, np.ndarray]] | None = None
    if int8:
        images = network.splits.train.image[:_IMAGES_FOR_INT8]
        examples = [{"image": image[None].astype(np.float32) / 255} for image in images]
    shape = [1, *network.splits.image_shape]
    spec = {"image": tf.TensorSpec(shape, tf.float32)}
    return litert(network.model, path, Exported(classify, spec), examples)


def export_onnx(
    workdir: pathlib.Path | str, path: pathlib.Path | str, which: str = "best"
) -> pathlib.Path:
    """Writes the network of a run as an ONNX file.

    Its input is `image`, uint8 [N, H, W, C]; its outputs are `probabilities`, float32
    [N, classes], and `class`, int64 [N].

    Args:
      workdir: Directory of the run.
      path: File to write; an existing one is replaced.
      which: Checkpoint of the run, "best" or "latest".

    Returns:
      The file.

    Raises:
      UsageError: tf2onnx is not installed, the directory holds no run or no such
        checkpoint, its precision is mixed_bfloat16, or the file cannot be written.
    """
    network = load_network(workdir, which)

    def classify(model: LeNet5, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return _classes(tf.cast(model(standardize(image)), tf.float32))

    shape = [None, *network.splits.image_shape]
    spec = {"image": tf.TensorSpec(shape, tf.uint8)}
    return onnx(network.model, path, Exported(classify, spec))


def _classes(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"probabilities": tf.nn.softmax(logits), "class": tf.argmax(logits, -1)}
