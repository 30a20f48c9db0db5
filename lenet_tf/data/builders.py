"""Opens TFDS's builders: names, directories, and whether a dataset fits this library.

    builder = open_builder("mnist", data_root(None))
    image_and_label(builder)     # ("image", "label")
    is_prepared(builder)         # no network attempt

TFDS is imported only when it is needed, and imports TensorFlow only when it reads.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from lenet_tf.data.raw_files import one_line
from lenet_tf.errors import DataError

IDX_DATASETS = ("mnist", "fashion_mnist", "kmnist", "emnist")
# dataset[/config][:version]; a namespace would send TFDS to the network.
_NAME = re.compile(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?", re.ASCII)


def import_tfds() -> Any:
    """Imports TFDS without its cloud bucket and, off a terminal, its progress bars.

    Raises:
      DataError: TFDS, or a package that it needs, is not installed.
    """
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.utils import gcs_utils
    except ImportError as error:
        raise DataError(
            "datasets by name need tensorflow-datasets, which cannot be imported "
            f"({one_line(str(error))}): pip install 'lenet_tf[data]'"
        ) from error

    # Older versions look into TFDS's cloud bucket by default, even for prepared data.
    gcs_utils._is_gcs_disabled = True
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns TFDS's directory: `data_dir`, else TFDS_DATA_DIR, else the standard one.

    Raises:
      DataError: The path cannot be a local directory.
    """
    root = os.fspath(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
    if "://" in root:
        raise DataError(f"data_dir is {root}: it must be a directory of this machine")
    try:
        root.encode()
        path = pathlib.Path(root).expanduser().absolute()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # A name that is too long, or no name at all, is found here.
    except UnicodeEncodeError as error:
        raise DataError(f"data_dir is {root!a}: it must be UTF-8") from error
    except PermissionError:
        pass  # The error is raised when it is opened.
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"data_dir is {one_line(root)}: it must be a directory ({reason})"
        ) from error
    return path


def open_builder(name: str, root: pathlib.Path) -> Any:
    """Returns the TFDS builder of a dataset, prepared or not.

    Args:
      name: Name in the form dataset[/config][:version]. A dataset that TFDS has no code
        for is found too, if it is prepared in `root`.
      root: Directory of TFDS's datasets.

    Raises:
      DataError: TFDS has no such dataset, config or version, or the one in `root` is
        damaged, cannot be read, or has features that are not TFDS's own.
    """
    tfds = import_tfds()
    try:
        if not _NAME.fullmatch(name):
            raise tfds.core.DatasetNotFoundError(name)
        with _only_features_of_tfds(tfds):
            return tfds.builder(name, data_dir=os.fspath(root))
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name, known, n=3) or IDX_DATASETS
        raise DataError(
            f"dataset is {one_line(name)!r}: TFDS has none of that name; is it one of "
            f"{', '.join(near)}?"
        ) from None
    except DataError:
        raise
    except Exception as error:  # An unknown config or version, a damaged directory.
        dataset, _, config = name.partition(":")[0].partition("/")
        configs = _configs(tfds, dataset)
        reason = one_line(str(error), 500)
        if config and configs and config not in configs:
            reason = f"its configs are {', '.join(configs)}"
        raise DataError(f"dataset is {name!r} in {root}: {reason}") from error


def _configs(tfds: Any, dataset: str) -> list[str]:
    """Returns the names of a dataset's configs, none if TFDS has no code for it."""
    try:
        return list(tfds.builder_cls(dataset).builder_configs)
    except tfds.core.DatasetNotFoundError:
        return []


@contextlib.contextmanager
def _only_features_of_tfds(tfds: Any) -> Iterator[None]:
    """Keeps TFDS from importing the Python modules that a features.json names.

    For a dataset that it has no code for, TFDS imports the classes named in that file,
    from whatever module. A data directory from a stranger could run the stranger's code
    that way.
    """
    connector = tfds.features.FeatureConnector
    original = vars(connector)["cls_from_name"]

    def checked(cls: Any, python_class_name: str) -> Any:
        if not python_class_name.startswith("tensorflow_datasets."):
            raise DataError(
                f"features.json names the class {one_line(python_class_name)!r}: only "
                "TFDS's own features are read, since importing others runs their code"
            )
        return original.__func__(cls, python_class_name)

    connector.cls_from_name = classmethod(checked)
    try:
        yield
    finally:
        connector.cls_from_name = original


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Leaves out TFDS's warnings about its own code, which a user cannot mend."""

    def is_wanted(record: logging.LogRecord) -> bool:
        by_tfds = "tensorflow_datasets" in pathlib.Path(record.pathname).parts
        return record.levelno >= logging.ERROR or not by_tfds

    logger = logging.getLogger("absl")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def image_and_label(builder: Any) -> tuple[str, str]:
    """Returns the names of a dataset's image and class label features.

    Raises:
      DataError: There is not exactly one of each, or the images differ in shape or are
        not uint8.
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
    """Whether the builder's version directory is there and complete.

    Raises:
      DataError: The directory is there, but TFDS did not finish it, or it cannot be
        read.
    """
    directory = pathlib.Path(builder.data_path)
    try:
        if not directory.exists():
            return False
        os.listdir(directory)
    except OSError as error:
        raise DataError(f"{directory} cannot be read: {error.strerror}") from error
    if not builder.is_prepared():
        raise DataError(
            f"{directory} is not a prepared dataset: remove it and run again"
        )
    return True
