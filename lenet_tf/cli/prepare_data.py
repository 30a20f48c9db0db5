"""Prepares a dataset for training, once, in the directory where TFDS keeps it.

    python -m lenet_tf prepare_data --dataset=mnist
    python -m lenet_tf prepare_data --dataset=fashion_mnist --idx_dir=downloads/fashion

A machine without the network can be given the directory that this prints.
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program
from lenet_tf.data import datasets

_DATASET = flags.DEFINE_string("dataset", "mnist", "TFDS name, such as emnist/letters.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "TFDS's directory (TFDS_DATA_DIR, else ~/tensorflow_datasets)."
)
_IDX_DIR = flags.DEFINE_string(
    "idx_dir", None, "Folder with the dataset's four IDX files, plain or .gz."
)


def _main() -> None:
    splits = datasets.load(
        _DATASET.value,
        data_dir=_DATA_DIR.value,
        idx_dir=_IDX_DIR.value,
        validation_examples=0,
    )
    print(
        f"{splits.name}: {splits.train_examples} train and {splits.test_examples} test "
        f"examples in {splits.directory} ({splits.source})"
    )


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
