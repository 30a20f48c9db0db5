"""Opens TFDS's builders: names, directories, and whether a dataset fits this library.

    builder = open_builder("mnist", data_root(None))
    image_and_label(builder)     # ("image", "label")
    is_prepared(builder)         # no network attempt

TFDS is imported only when it is needed; it takes TensorFlow along only when it reads.
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import sys
from typing import Any

import numpy as np

from lenet_tf.errors import DataError

IDX_DATASETS = ("mnist", "fashion_mnist", "kmnist", "emnist")
# dataset[/config][:version]; a namespace would send TFDS to the network.
_NAME = re.compile(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?")


def import_tfds() -> Any:
    """Imports TFDS without its network and, off a terminal, its progress bars."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import gcs_utils

    # Off by default now; versions where it was on looked there even for prepared data.
    gcs_utils._is_gcs_disabled = True
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns TFDS's directory: `data_dir`, else TFDS_DATA_DIR, else the standard one.

    Raises:
      DataError: It is not a local directory.
    """
    root = os.fspath(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
    if "://" in root:
        raise DataError(f"data_dir is {root}: it must be a directory of this machine")
    return pathlib.Path(root).expanduser().absolute()


def open_builder(name: str, root: pathlib.Path) -> Any:
    """Returns the TFDS builder of a dataset, prepared or not.

    Args:
      name: dataset[/config][:version]. A dataset that TFDS has no code for is found too
        when it lies prepared in `root`.
      root: TFDS's directory.

    Raises:
      DataError: TFDS has no such dataset, config or version, or it is damaged.
    """
    tfds = import_tfds()
    try:
        if not _NAME.fullmatch(name):
            raise tfds.core.DatasetNotFoundError(name)
        return tfds.builder(name, data_dir=os.fspath(root))
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name, known, n=3) or IDX_DATASETS
        raise DataError(
            f"dataset is {name!r}: TFDS has none of that name; is it one of "
            f"{', '.join(near)}?"
        ) from None
    except Exception as error:  # An unknown config or version, a damaged directory.
        dataset, _, config = name.partition(":")[0].partition("/")
        configs = tfds.builder_cls(dataset).builder_configs
        reason = " ".join(str(error).split())
        if config and config not in configs:
            reason = f"its configs are {', '.join(configs)}"
        raise DataError(f"dataset is {name!r}: {reason}") from error


def image_and_label(builder: Any) -> tuple[str, str]:
    """Returns the names of a dataset's one image and one class label.

    Raises:
      DataError: There are none or several, or images differ in shape or are not uint8.
    """
    kinds = import_tfds().features
    features = dict(builder.info.features or {})
    images = [k for k, v in features.items() if isinstance(v, kinds.Image)]
    labels = [k for k, v in features.items() if isinstance(v, kinds.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        has = ", ".join(f"{k}: {type(v).__name__}" for k, v in features.items())
        raise DataError(
            f"{builder.name} has the features {has or 'unknown'}: it must have one "
            "Image and one ClassLabel"
        )
    image = features[images[0]]
    if None in image.shape or image.np_dtype != np.uint8:
        raise DataError(
            f"{builder.name} has images of shape {image.shape} and type "
            f"{np.dtype(image.np_dtype)}: they must all have one shape and be uint8"
        )
    return images[0], labels[0]


def is_prepared(builder: Any) -> bool:
    """Tells whether the builder's version directory is there and complete.

    Raises:
      DataError: The directory is there, but TFDS did not finish it.
    """
    directory = pathlib.Path(builder.data_path)
    if not directory.exists():
        return False
    if not builder.is_prepared():
        raise DataError(f"{directory} is not a prepared dataset: remove it, run again")
    return True
