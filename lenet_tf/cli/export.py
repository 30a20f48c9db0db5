"""Writes the network of a run as a SavedModel, with the preparation of its images.

    python -m lenet_tf export --workdir=runs/mnist --output=exported
    python -m lenet_tf export --format=litert_int8 --output=digits.tflite
    python -m lenet_tf export --format=onnx --output=digits.onnx

TensorFlow loads it without this library: tf.saved_model.load("exported").
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program
from lenet_tf.experiment.exports import export_litert, export_onnx, export_run

_WORKDIR = program.define_path("workdir", "runs/mnist", "Directory of the run.")
_OUTPUT = program.define_path(
    "output",
    None,
    "Folder or file to write; by default exported, exported.tflite or exported.onnx.",
)
_ENDINGS = {"saved": "", "litert": ".tflite", "onnx": ".onnx"}
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["latest", "best"], "Checkpoint whose weights are exported."
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    ["saved_model", "litert", "litert_int8", "onnx"],
    "Format: a SavedModel, a file for LiteRT in float32 or int8, or an ONNX file.",
)


def _main() -> None:
    kind = _FORMAT.value.split("_")[0]
    output = _OUTPUT.value or f"exported{_ENDINGS[kind]}"
    run = _WORKDIR.value, output, _CHECKPOINT.value
    if _FORMAT.value == "saved_model":
        written = export_run(*run)
    elif _FORMAT.value == "onnx":
        written = export_onnx(*run)
    else:
        written = export_litert(*run, int8=_FORMAT.value == "litert_int8")
    print(f"exported to {written}")


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
