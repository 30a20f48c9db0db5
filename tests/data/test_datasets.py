from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from idx_writer import write_idx_dir
from programs import run

from lenet_tf.data import builders, datasets
from lenet_tf.errors import DataError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def mnist() -> datasets.Splits:
    """The real MNIST, in the standard directory so that later runs find it."""
    return datasets.load("mnist")


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir with 40 + 12 random digits prepared as mnist."""
    folder = tmp_path_factory.mktemp("tiny")
    write_idx_dir(folder / "idx")
    datasets.prepare("mnist", data_dir=folder / "data", idx_dir=folder / "idx")
    return folder / "data"


def test_mnist_is_what_it_should_be(mnist: datasets.Splits) -> None:
    assert mnist.name == "mnist"
    assert mnist.image_shape == (28, 28, 1)
    assert mnist.num_classes == 10
    sizes = {"train": 58000, "validation": 2000, "test": 10000}
    for name, size in sizes.items():
        examples = getattr(mnist, name)
        assert len(examples) == getattr(mnist, f"{name}_examples") == size
        assert examples.image.shape == (size, 28, 28, 1)
        assert examples.image.dtype == np.uint8
        assert examples.label.shape == (size,)
        assert examples.label.dtype == np.int32
    labels = np.concatenate([mnist.train.label, mnist.validation.label])
    # The digits' counts as the database's authors give them.
    assert np.bincount(labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert np.bincount(mnist.test.label).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    pixels = np.concatenate([mnist.train.image, mnist.validation.image])
    assert round(pixels.mean() / 255, 4) == 0.1307


def test_reading_a_split_logs_no_warning(
    tiny_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / "read.py"
    script.write_text(
        "import lenet_tf\n"
        f"print(len(lenet_tf.load('mnist', data_dir={str(tiny_dir)!r}, "
        "validation_examples=0).test))"
    )
    finished = run(str(script))
    assert finished.stdout == "12\n"
    assert "WARNING:absl" not in finished.stderr


def test_slices_are_tfds_slices_in_order(mnist: datasets.Splits) -> None:
    import tensorflow_datasets as tfds

    batch = next(
        iter(tfds.load("mnist", split="train[-2000:]", download=False).batch(2000))
    )
    np.testing.assert_array_equal(mnist.validation.image, batch["image"])
    np.testing.assert_array_equal(mnist.validation.label, batch["label"])


def test_a_prepared_dataset_needs_no_network(mnist: datasets.Splits) -> None:
    code = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("a network attempt")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.gethostbyname = refuse
from lenet_tf.data import datasets
print(len(datasets.load("mnist").test))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "10000\n", done.stderr


def test_each_split_is_read_when_asked_for_and_once(
    tiny_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = datasets.Splits._read

    def spy(self: datasets.Splits, split: str, count: int) -> datasets.Examples:
        read.append(split)
        return original(self, split, count)

    monkeypatch.setattr(datasets.Splits, "_read", spy)
    splits = datasets.load("mnist", data_dir=tiny_dir, validation_examples=10)
    sizes = splits.train_examples, splits.validation_examples, splits.test_examples
    assert sizes == (30, 10, 12)
    assert read == []
    assert splits.train is splits.train
    assert read == ["train[:30]"]
    assert splits.test is splits.test
    assert read == ["train[:30]", "test"]


def test_training_does_not_need_the_test_files(
    tiny_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    splits = copy_of(tiny_dir, tmp_path)
    for path in splits.directory.glob("*test*"):
        path.unlink()
    assert len(splits.train) == 30
    with pytest.raises(DataError, match="damaged, remove it"):
        _ = splits.test


def copy_of(data_dir: pathlib.Path, target: pathlib.Path) -> datasets.Splits:
    shutil.copytree(data_dir, target, dirs_exist_ok=True)
    return datasets.load("mnist", data_dir=target, validation_examples=10)


def test_truncated_files_are_refused(
    tiny_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    splits = copy_of(tiny_dir, tmp_path)
    (path,) = splits.directory.glob("*train.tfrecord*")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged, remove it") as caught:
        _ = splits.validation
    assert "\n" not in str(caught.value)


def test_the_order_is_the_same_in_every_load(tiny_dir: pathlib.Path) -> None:
    first, second = (
        datasets.load("mnist", data_dir=tiny_dir, validation_examples=k)
        for k in (0, 10)
    )
    assert len(first.validation) == 0
    assert first.validation.image.shape == (0, 28, 28, 1)
    joined = [second.train.image, second.validation.image]
    np.testing.assert_array_equal(first.train.image, np.concatenate(joined))


@pytest.mark.parametrize("validation_examples", [-1, 40, 60000])
def test_validation_must_leave_something_to_train_on(
    tiny_dir: pathlib.Path, validation_examples: int
) -> None:
    with pytest.raises(
        DataError, match=f"validation_examples is {validation_examples}"
    ):
        datasets.load(
            "mnist", data_dir=tiny_dir, validation_examples=validation_examples
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "TFDS has none of that name; is it one of mnist"),
        ("namespace:mnist", "none of that name"),
        ("../mnist", "none of that name"),
        ("emnist/digit", "its configs are byclass, .*digits"),
        ("mnist:9.9.9", "3.0.1"),
        ("ag_news_subset", "features .*: Text.* must have one Image"),
        ("tf_flowers", r"images of shape \(None, None, 3\)"),
        (
            "voc/2007",
            "features image: Image, .* must have one Image and one ClassLabel",
        ),
    ],
)
def test_unknown_and_unfit_datasets_are_refused_in_one_line(
    tmp_path: pathlib.Path, name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        datasets.load(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_idx_form_refuses_idx_dir(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="cifar10 is not published as IDX files"):
        datasets.load("cifar10", data_dir=tmp_path, idx_dir=tmp_path)


def test_a_directory_tfds_did_not_finish_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(DataError, match="not a prepared dataset: remove it"):
        datasets.load("mnist", data_dir=tmp_path)


def test_the_directory_is_the_argument_else_the_environment_else_the_standard_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert builders.data_root("other") == pathlib.Path("other").absolute()
    assert builders.data_root(None) == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert builders.data_root(None) == pathlib.Path.home() / "tensorflow_datasets"


def test_a_dataset_needs_train_and_test() -> None:
    builder = types.SimpleNamespace(
        name="one_split",
        builder_config=None,
        info=types.SimpleNamespace(splits={}),
    )
    with pytest.raises(DataError, match="must have train and test"):
        datasets.Splits(builder, 0, "nowhere")
