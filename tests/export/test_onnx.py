"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from programs import run

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.experiment import load_network
from lenet_tf.export import Exported, onnx

X = np.random.default_rng(0).normal(size=[5, 3]).astype(np.float32)
SPEC = {"x": tf.TensorSpec([None, 3], tf.float32)}


def outputs(file: pathlib.Path, **inputs: np.ndarray) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(file))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


class Net(tf.Module):
    """A model of two inputs, with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = lenet_tf.nn.Dense(3, 4, (0, 1))
        self.norm = lenet_tf.nn.BatchNorm(4)

    def __call__(self, x: tf.Tensor, bias: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = self.norm(self.hidden(x), {}, False) + bias
        return {"wave": tf.sin(hidden), "largest": tf.argmax(hidden, 1)}


def test_inputs_and_outputs_keep_their_names(tmp_path: pathlib.Path) -> None:
    model = Net()
    inputs = {**SPEC, "bias": tf.TensorSpec([4], tf.float32)}
    file = tmp_path / "new" / "net.onnx"
    assert onnx(model, file, Exported(Net.__call__, inputs)) == file
    bias = np.arange(4, dtype=np.float32)
    for examples in (5, 1, 0):
        ours = model(X[:examples], bias)
        theirs = outputs(file, x=X[:examples], bias=bias)
        assert sorted(theirs) == ["largest", "wave"]
        np.testing.assert_allclose(theirs["wave"], ours["wave"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(theirs["largest"], ours["largest"])

    model.hidden.w.assign(2 * model.hidden.w)
    onnx(model, file, Exported(Net.__call__, inputs))
    theirs = outputs(file, x=X, bias=bias)
    np.testing.assert_allclose(theirs["wave"], model(X, bias)["wave"], 1e-5, 1e-6)


def test_an_onnx_file_of_a_run_is_as_accurate(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "digits.onnx"
    finished = run(
        str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py"),
        *("export", f"--workdir={trained}", f"--output={file}", "--format=onnx"),
        "--checkpoint=latest",
    )
    assert finished.status == 0, finished.stderr
    test = lenet_tf.load("mnist").test
    found = outputs(file, image=test.image)
    result = json.loads((trained / "result.json").read_text())
    right = (found["class"] == test.label).mean()
    assert right == pytest.approx(result["test_accuracy"], abs=2e-4)
    network = load_network(trained, "latest").model
    logits = network(lenet_tf.standardize(test.image[:500]))
    np.testing.assert_allclose(
        found["probabilities"][:500], tf.nn.softmax(logits), rtol=1e-4, atol=1e-6
    )


def test_what_onnx_cannot_hold_is_one_line_and_leaves_nothing(
    tmp_path: pathlib.Path,
) -> None:
    model = tf.Module()
    model.w = tf.Variable(1.0)
    good = Exported(lambda model, x: model.w * x, SPEC)
    (tmp_path / "file").write_text("")

    def half(model: tf.Module, x: tf.Tensor) -> tf.Tensor:
        narrow, w = tf.cast(x, tf.bfloat16), tf.cast(model.w, tf.bfloat16)
        return tf.cast(narrow * w, tf.float32)

    for path, exported, line in [
        ("new", Exported(lambda model, x: tf.linalg.svd(x)[0], SPEC), "cannot.*Svd"),
        ("new", Exported(half, SPEC), "cannot hold it.*bfloat16"),
        ("new", Exported(lambda model, x: {"x": 2 * x}, SPEC), "x is an input and an"),
        ("new", Exported(lambda model, x: {"y": 3}, SPEC), "returned 3 as 'y'"),
        (
            "new",
            Exported(lambda model, x: x, {"x": tf.TensorSpec(None, tf.float32)}),
            "x has an unknown number of axes",
        ),
        ("file/x", good, "cannot be written"),
    ]:
        with pytest.raises(UsageError, match=line) as error:
            onnx(model, tmp_path / path, exported)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_converter_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'lenet_tf\[onnx\]'"):
        onnx(tf.Module(), tmp_path / "f", Exported(lambda model, x: x, SPEC))
