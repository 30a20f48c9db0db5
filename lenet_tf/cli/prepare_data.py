"""Prepares a dataset for training, once, in the directory where TFDS keeps it.

    python -m lenet_tf prepare_data --dataset=mnist
    python -m lenet_tf prepare_data --dataset=fashion_mnist --idx_dir=downloads/fashion

The directory that this prints can be copied to a machine without a network.
"""

from __future__ import annotations

from lenet_tf.cli import program, setting_flags
from lenet_tf.data import datasets
from lenet_tf.experiment.config import Config

setting_flags.define(Config, "dataset", "data_dir", "idx_dir")


def _main() -> None:
    config = Config.from_dict(setting_flags.given(Config))
    splits = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        idx_dir=config.idx_dir,
        validation_examples=0,
    )
    print(
        f"{splits.name}: {splits.train_examples} train and {splits.test_examples} test "
        f"examples in {splits.directory} ({splits.source})"
    )


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
