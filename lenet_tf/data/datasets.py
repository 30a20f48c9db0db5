"""Datasets by name: prepared once by TFDS, then read into memory as uint8.

    splits = load("mnist", validation_examples=2000)
    splits.train.image.shape        # (58000, 28, 28, 1), uint8
    splits.train.label.shape        # (58000,), int32
    len(splits.validation)          # 2000: the last of TFDS's train split
    splits.test                     # read now, not before

Any TFDS dataset works whose images are uint8 and all of one size, with one class label
each. `preparation` describes where the raw files come from.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from lenet_tf.data import builders, preparation, raw_files
from lenet_tf.data.records import Records
from lenet_tf.errors import DataError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images and their labels, in memory.

    Attributes:
      image: Images, uint8 [N, H, W, C].
      label: Class of each image, int32 [N].
    """

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


class _LabelledRecords(Records):
    """Records whose labels are int32, as those in memory are."""

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of records [N]; see `Records`."""
        parsed = super().parse(serialized)
        return {
            name: tf.cast(values, tf.int32) if values.dtype == tf.int64 else values
            for name, values in parsed.items()
        }


class Splits:
    """A prepared dataset; each split is read at its first use and then kept.

    The order of a split is that of its files, the same in every run.

    Args:
      builder: TFDS builder of a prepared dataset.
      validation_examples: Number of examples at the end of the train split that make
        the validation split.
      source: Origin of the raw files, in words, such as "already prepared".

    Attributes:
      name: TFDS name, with the config if there is one.
      directory: Directory of the prepared version.
      source: Origin of the raw files, in words.
      image_shape: Height, width and channels of every image.
      num_classes: Number of classes; labels are 0 to `num_classes` - 1.
      class_names: Name of each class, such as "Trouser".
      train_examples: Size of `train`, known without reading it.
      validation_examples: Size of `validation`.
      test_examples: Size of `test`, known without reading it.

    Raises:
      DataError: The dataset has no train or test split, has other features than one
        image and one class label, or `validation_examples` leaves nothing to train on.
    """

    def __init__(self, builder: Any, validation_examples: int, source: str) -> None:
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        config = builder.builder_config
        self.name: str = f"{builder.name}/{config.name}" if config else builder.name
        if not {"train", "test"} <= set(sizes):
            raise DataError(
                f"{self.name} has the splits {', '.join(sizes)}: it must have train "
                "and test"
            )
        if not 0 <= validation_examples < sizes["train"]:
            raise DataError(
                f"validation_examples is {validation_examples}: {self.name} has "
                f"{sizes['train']} training examples, so it can be 0 to "
                f"{sizes['train'] - 1}"
            )
        self._builder = builder
        self._image_key, self._label_key = builders.image_and_label(builder)
        features = builder.info.features
        self.directory = pathlib.Path(builder.data_path)
        self.source = source
        self.image_shape: tuple[int, int, int] = tuple(features[self._image_key].shape)
        self.num_classes: int = features[self._label_key].num_classes
        self.class_names: tuple[str, ...] = tuple(features[self._label_key].names)
        self.train_examples: int = sizes["train"] - validation_examples
        self.validation_examples: int = validation_examples
        self.test_examples: int = sizes["test"]

    @functools.cached_property
    def train(self) -> Examples:
        """The train split without its last `validation_examples` examples."""
        return self._read(f"train[:{self.train_examples}]", self.train_examples)

    @functools.cached_property
    def validation(self) -> Examples:
        """The last `validation_examples` examples of the train split; can be empty."""
        return self._read(f"train[{self.train_examples}:]", self.validation_examples)

    @functools.cached_property
    def test(self) -> Examples:
        """The test split."""
        return self._read("test", self.test_examples)

    def records(self, split: str) -> Records:
        """Returns a split as the records of its files, for what memory cannot hold.

        `Batches` of them have the entries `image` and `label`, and are those of the
        arrays in memory.

        Args:
          split: Name of the split, "train", "validation" or "test".

        Raises:
          DataError: There is no such split, or its files are not TFRecord files, are
            missing or damaged.
        """
        sizes = {"train": self.train_examples, "validation": self.validation_examples}
        if split not in (*sizes, "test"):
            raise DataError(
                f"split is {split!r}: it must be 'train', 'validation' or 'test'"
            )
        feature = self._builder.info.features[self._image_key]
        label = self._label_key

        def decode(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            image = feature.decode_example(parsed[self._image_key])
            return {"image": image, "label": parsed[label]}

        records = _LabelledRecords(
            self._builder.info.splits["test" if split == "test" else "train"].filepaths,
            {
                self._image_key: tf.io.FixedLenFeature([], tf.string),
                label: tf.io.FixedLenFeature([], tf.int64),
            },
            decode,
        )
        first = self.train_examples if split == "validation" else 0
        return records.part(first, first + sizes.get(split, self.test_examples))

    def _read(self, split: str, count: int) -> Examples:
        """Reads a TFDS split of `count` examples and checks them.

        Raises:
          DataError: The files are missing or damaged, cannot be read, or hold other
            images or labels than they should.
        """
        if count == 0:  # TFDS refuses to read an empty slice.
            empty = np.empty((0, *self.image_shape), np.uint8)
            return Examples(empty, np.empty(0, np.int32))
        try:
            batches = [
                (batch[self._image_key], batch[self._label_key])
                for batch in self._dataset(split).batch(4096).as_numpy_iterator()
            ]
        except tf.errors.PermissionDeniedError as error:
            raise DataError(
                f"{self.directory} cannot be read: Permission denied"
            ) from error
        except (ImportError, OSError) as error:  # as of a format other than TFRecord
            reason = raw_files.one_line(str(error))
            raise DataError(f"{self.directory} cannot be read: {reason}") from error
        except tf.errors.OpError as error:
            raise DataError(
                f"{self.directory} is damaged, remove it and run again: "
                f"{raw_files.one_line(str(error.message))}"
            ) from error
        image, label = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        if image.shape != (count, *self.image_shape) or image.dtype != np.uint8:
            raise DataError(
                f"{self.directory}: {split} has images {image.shape} {image.dtype}, "
                f"not {(count, *self.image_shape)} uint8"
            )
        if label.min() < 0 or label.max() >= self.num_classes:
            raise DataError(
                f"{self.directory}: {split} has labels {label.min()} to {label.max()}, "
                f"not 0 to {self.num_classes - 1}"
            )
        return Examples(image, label.astype(np.int32))

    def _dataset(self, split: str) -> Any:
        """Returns a tf.data.Dataset of single examples, in the order of the files."""
        tfds = builders.import_tfds()
        options = tf.data.Options()
        options.deterministic = True
        # Autotuning takes longer than reading.
        options.autotune.enabled = False
        wanted = {self._image_key: True, self._label_key: True}
        with builders.without_warnings():
            return self._builder.as_dataset(
                split=split,
                shuffle_files=False,
                decoders=tfds.decode.PartialDecoding(wanted),
                read_config=tfds.ReadConfig(
                    options=options,
                    try_autocache=False,
                    skip_prefetch=True,
                    interleave_cycle_length=1,  # One file after the other.
                    num_parallel_calls_for_interleave_files=1,
                    num_parallel_calls_for_decode=16,
                ),
            )


def load(
    name: str = "mnist",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    validation_examples: int = 2000,
    idx_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """Opens a dataset, and prepares it first if that has not been done.

    Reading a split starts TensorFlow: call `make_strategy` before.

    Args:
      name: TFDS name, such as "mnist", "fashion_mnist" or "emnist/letters".
      data_dir: Directory of TFDS's datasets; by default the environment variable
        TFDS_DATA_DIR, else ~/tensorflow_datasets.
      validation_examples: Number of examples at the end of the train split to hold out.
      idx_dir: Folder with the dataset's four IDX files, read if it is not yet prepared.

    Returns:
      The dataset's splits, none of them read yet.

    Raises:
      DataError: The dataset is unknown, unfit or cannot be obtained, `data_dir` cannot
        be read or written, or `validation_examples` is negative or leaves nothing to
        train on.
    """
    if validation_examples < 0:  # wrong for every dataset: do not download first
        raise DataError(
            f"validation_examples is {validation_examples}: it must be at least 0"
        )
    builder, source = preparation.prepare(name, data_dir=data_dir, idx_dir=idx_dir)
    return Splits(builder, validation_examples, source)


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    idx_dir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
    """Downloads a dataset and writes it in TFDS's format, unless that has been done.

    Args:
      name: TFDS name, such as "mnist", "fashion_mnist" or "emnist/letters".
      data_dir: Directory of TFDS's datasets; by default the environment variable
        TFDS_DATA_DIR, else ~/tensorflow_datasets.
      idx_dir: Folder with the dataset's four IDX files, read if it is not yet prepared.

    Returns:
      Directory of the prepared version, such as ~/tensorflow_datasets/mnist/3.0.1.

    Raises:
      DataError: The dataset is unknown, unfit or cannot be obtained, or `data_dir`
        cannot be read or written.
    """
    builder, _ = preparation.prepare(name, data_dir=data_dir, idx_dir=idx_dir)
    return pathlib.Path(builder.data_path)
