"""The result of a run in its directory: written at its end, and read when it is whole.

    write_result(workdir, settings, {"test_loss": 0.21})
    read_result(workdir, settings)          # {"test_loss": 0.21, ...}, or None

A result belongs to the settings and to the newest checkpoint, whose checksum it holds.
With other settings or other weights it does not count.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lenet_tf.checkpoint.storage import newest_whole
from lenet_tf.errors import UsageError
from lenet_tf.files import read_json, write_json

RESULT_FILE = "result.json"
_FINGERPRINT = "fingerprint"


def read_result(
    workdir: pathlib.Path, settings: Mapping[str, object]
) -> dict[str, Any] | None:
    """Returns what result.json holds if it belongs to these settings and weights."""
    try:
        result = read_json(workdir / RESULT_FILE)
        if result.get(_FINGERPRINT) == _fingerprint(workdir, settings):
            return result
    except UsageError:
        pass  # It is written anew, or the error comes again where it is in the way.
    return None


def write_result(
    workdir: pathlib.Path, settings: Mapping[str, object], values: Mapping[str, object]
) -> dict[str, Any]:
    """Writes result.json.

    Args:
      workdir: Directory of the run.
      settings: Settings of the run.
      values: Results by name, JSON values or values of NumPy.

    Returns:
      What the file holds: the values, and the checksum of settings and weights.

    Raises:
      UsageError: A value cannot be written as JSON, or the file cannot be written.
    """
    result = as_json(values) | {_FINGERPRINT: _fingerprint(workdir, settings)}
    write_json(workdir / RESULT_FILE, result)
    return result


def as_json(values: Mapping[str, object]) -> dict[str, Any]:
    """Returns values as JSON values; those of NumPy and TensorFlow become numbers.

    Raises:
      UsageError: A value cannot be written as JSON.
    """
    converted: dict[str, Any] = {}
    for name, value in values.items():
        try:
            converted[name] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{name} is {value!r}: give numbers, strings, lists or dicts of them"
            ) from error
    return converted


def _plain(value: object) -> object:
    """Returns an array, a scalar or a path as what JSON has."""
    if isinstance(value, pathlib.Path):
        return str(value)
    if isinstance(value, tf.Tensor | tf.Variable):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _fingerprint(workdir: pathlib.Path, settings: Mapping[str, object]) -> str:
    """Returns a checksum of the settings and of the newest checkpoint."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    path = newest_whole(workdir / "checkpoints")
    if path is not None:  # The index holds the checksums of all tensors.
        digest.update(pathlib.Path(f"{path}.index").read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of what the numbers of a run may depend on, by name."""
    tfds = "tensorflow-datasets"
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        tfds: importlib.metadata.version(tfds),
        "numpy": np.__version__,
    }
