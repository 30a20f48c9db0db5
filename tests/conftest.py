"""Four logical CPU devices for the whole session: set before TensorFlow starts."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest

# No setting silences the notices of TensorFlow, and pytest would print them last.
_stderr, _null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_null, 2)
try:
    import tensorflow as tf

    tf.config.list_physical_devices()
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_null)

from idx_writer import idx_bytes  # noqa: E402

from lenet_tf.data.datasets import load, prepare  # noqa: E402
from lenet_tf.parallel.strategies import make_strategy  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)
tf.config.threading.set_intra_op_parallelism_threads(1)


@pytest.fixture(scope="session", autouse=True)
def mnist() -> None:
    """Prepares MNIST where it stays, so that no test meets a first time by chance."""
    prepare("mnist")


@pytest.fixture(params=[1, 2, 4], ids="{} replicas".format)
def strategy(request: pytest.FixtureRequest) -> tf.distribute.Strategy:
    """A MirroredStrategy of 1, 2 and 4 logical CPU devices."""
    return make_strategy(request.param)


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """103 random images and labels, of MNIST's shapes."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, [103, 28, 28, 1], np.uint8),
        "label": rng.integers(0, 10, [103], np.int32),
    }


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory of TFDS with 2,500 and 300 real digits."""
    root, splits = tmp_path_factory.mktemp("digits"), load("mnist")
    for name, examples, count in (
        ("train", splits.train, 2500),
        ("t10k", splits.test, 300),
    ):
        for kind, array in (
            ("images-idx3", examples.image[:count, ..., 0]),
            ("labels-idx1", examples.label[:count]),
        ):
            (root / f"{name}-{kind}-ubyte").write_bytes(idx_bytes(array))
    prepare("mnist", data_dir=root / "data", idx_dir=root)
    return root / "data"
