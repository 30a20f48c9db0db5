"""Exported models, used as those who get them do: without this library."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import run

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.experiment import load_network
from lenet_tf.export import Exported, saved_model

X = np.random.default_rng(0).normal(size=[50, 3]).astype(np.float32)
SPEC = {"x": tf.TensorSpec([None, 3], tf.float32)}

# A process that cannot import this library loads the folder and calls a signature.
CALL = """
import json, sys
sys.modules["lenet_tf"] = None
import numpy as np, tensorflow as tf
folder, name, data, key = sys.argv[1:]
loaded = tf.saved_model.load(folder)
outputs = loaded.signatures[name](**{key: tf.constant(np.load(data))})
print(json.dumps({k: v.numpy().tolist() for k, v in outputs.items()}))
"""


def call(folder: pathlib.Path, name: str, inputs: np.ndarray, key: str) -> Any:
    data = folder.parent / f"{name}.npy"
    np.save(data, inputs)
    done = subprocess.run(
        [sys.executable, "-c", CALL, str(folder), name, str(data), key],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


class Net(tf.Module):
    """A model with batch normalization, which has state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = lenet_tf.nn.Dense(3, 4, (0, 1))
        self.norm = lenet_tf.nn.BatchNorm(4)
        self.output = lenet_tf.nn.Dense(4, 1, (0, 2))


def predict(model: Net, x: tf.Tensor, batch: Any, training: bool) -> tf.Tensor:
    hidden = model.norm(model.hidden(x), batch, training)
    return model.output(tf.tanh(hidden))[:, 0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_model_of_ones_own(replicas: int, tmp_path: pathlib.Path) -> None:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Net()

    def forward(model: Net, batch: Any, training: bool) -> dict[str, tf.Tensor]:
        error = predict(model, batch["x"], batch, training) - batch["y"]
        return {"loss": error**2}

    trainer = lenet_tf.Trainer(model, lenet_tf.Adam(0.1), forward, strategy=strategy)
    data = lenet_tf.Batches({"x": X, "y": X.sum(1)}, 10)
    trainer.fit(data, epochs=2)

    def value(model: Net, x: tf.Tensor) -> tf.Tensor:
        return predict(model, x, {}, training=False)

    folder = saved_model(
        model, tmp_path / "new" / "out", {"serving_default": Exported(value, SPEC)}
    )
    ours = trainer.predict(data, lambda model, batch: value(model, batch["x"]))
    theirs = call(folder, "serving_default", X[:7], "x")
    np.testing.assert_allclose(theirs["output"], ours[:7], rtol=1e-5, atol=1e-6)


def test_the_network_of_a_run(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "exported"
    finished = run(
        str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py"),
        "export",
        f"--workdir={trained}",
        f"--output={folder}",
        "--checkpoint=latest",
    )
    assert finished.status == 0, finished.stderr
    test = lenet_tf.load("mnist").test
    loaded = tf.saved_model.load(str(folder)).signatures
    found = loaded["serving_default"](image=tf.constant(test.image))
    result = json.loads((trained / "result.json").read_text())
    right = (found["class"].numpy() == test.label).mean()
    assert right == pytest.approx(result["test_accuracy"], abs=1e-9)
    np.testing.assert_allclose(found["probabilities"].numpy().sum(1), 1, rtol=1e-5)

    without_axis = call(folder, "serving_default", test.image[:5, ..., 0], "image")
    assert without_axis["class"] == found["class"][:5].numpy().tolist()
    logits = call(folder, "logits", test.image[:5], "image")["logits"]
    np.testing.assert_allclose(
        tf.nn.softmax(logits), found["probabilities"][:5], rtol=1e-5
    )
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serving_default")
    np.testing.assert_array_equal(
        layer(tf.constant(test.image[:5]))["class"], found["class"][:5]
    )
    for shape in ([2, 14, 56], [2, 28, 28, 3], [28, 28]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            loaded["serving_default"](image=tf.zeros(shape, tf.uint8))


def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    model = tf.Module()
    model.w = tf.Variable(1.0)
    good = Exported(lambda model, x: model.w * x, SPEC)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    (tmp_path / "file").write_text("")
    for path, functions, line in [
        ("used", {"f": good}, "exists already"),
        ("file", {"f": good}, "exists already"),
        ("file/x", {"f": good}, "cannot be written: File exists"),
        ("new", {}, "there are no functions"),
        ("new", {"f": Exported(lambda model, x: {"y": 3}, SPEC)}, "returned 3 as 'y'"),
    ]:
        with pytest.raises(UsageError, match=line) as error:
            saved_model(model, tmp_path / path, functions)
        assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "used"]


@pytest.mark.filterwarnings("ignore:\\s*Warning.*tf.lite.Interpreter:UserWarning")
@pytest.mark.parametrize("kind", ["litert", "litert_int8"])
def test_a_litert_file_is_as_accurate(
    kind: str, trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "digits.tflite"
    finished = run(
        str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py"),
        *("export", f"--workdir={trained}", f"--output={file}", f"--format={kind}"),
        "--checkpoint=latest",
    )
    assert finished.status == 0, finished.stderr
    interpreter = tf.lite.Interpreter(str(file))
    interpreter.allocate_tensors()
    (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
    test, classes = lenet_tf.load("mnist").test, []
    for image in test.image[:2000]:
        interpreter.set_tensor(given["index"], np.float32(image[None]) / 255)
        interpreter.invoke()
        classes.append(interpreter.get_tensor(got["index"])[0].argmax())
    network = load_network(trained, "latest").model
    logits = network(lenet_tf.standardize(test.image[:2000]))
    same = (np.array(classes) == np.argmax(logits, 1)).mean()
    assert same == 1 if kind == "litert" else same > 0.95
    assert file.stat().st_size < (300_000 if kind == "litert" else 100_000)
