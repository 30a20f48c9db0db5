"""Bounds TFDS's downloads in time and in size, and lets a signal end them.

    with bounded_downloads(max_bytes=2 * known_size):
        builder.download_and_prepare()

TFDS downloads in threads that wait for data for ever and that Python joins before it
exits. Here downloads run in daemon threads. A download that stalls or does not end is
an error, and its partial files are removed in every case, a signal included.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

from tensorflow_datasets.core.download import download_manager, downloader

from lenet_tf.data.raw_files import start
from lenet_tf.errors import DataError

STALL_SECONDS = 30.0
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def bounded_downloads(max_bytes: int) -> Iterator[None]:
    """Bounds the downloads that TFDS starts in the context.

    If a download stalls or exceeds the bound, TFDS's call raises a DataError.

    Args:
      max_bytes: Largest total size of all downloads, in bytes.
    """
    bounds = _Bounds(max_bytes)
    original = download_manager.get_downloader
    download_manager.get_downloader = functools.partial(_Downloader, bounds)
    try:
        yield
    finally:
        download_manager.get_downloader = original
        bounds.ended = True
        for folder in bounds.folders:  # TFDS removes those of complete downloads.
            shutil.rmtree(folder, ignore_errors=True)


class _Bounds:
    """Limits and state that the downloads of one context share.

    Attributes:
      folders: Temporary folder of each download.
      last_block: Time when data last came, by `time.monotonic`.
      ended: Whether the context has ended, and with it every download.
    """

    def __init__(self, max_bytes: int) -> None:
        self.folders: list[Any] = []
        self.last_block = time.monotonic()
        self.ended = False
        self._received, self._max_bytes = 0, max_bytes

    def count(self, block: bytes) -> None:
        """Counts a block of data that has come.

        Raises:
          DataError: The data exceed the bound, or the context has ended.
        """
        self.last_block = time.monotonic()
        self._received += len(block)
        if self._received > self._max_bytes:
            raise DataError(
                f"more than {self._max_bytes / 2**20:.0f} MiB came, which is more than "
                "the dataset can need"
            )
        if self.ended:
            raise DataError("the download was ended")


class _CountingHash:
    """SHA-256 of a download; TFDS calls `update` before it writes each block."""

    def __init__(self, bounds: _Bounds) -> None:
        self._bounds, self._hash = bounds, hashlib.sha256()

    def update(self, block: bytes) -> None:
        self._bounds.count(block)
        self._hash.update(block)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Downloader(downloader._Downloader):
    """TFDS's downloader, in daemon threads and within bounds."""

    def __init__(
        self, bounds: _Bounds, max_simultaneous_downloads: int | None = None
    ) -> None:
        super().__init__(checksumer=functools.partial(_CountingHash, bounds))
        self._bounds = bounds
        self._slots = threading.Semaphore(
            max_simultaneous_downloads or self._DEFAULT_MAX_SIMULTANEOUS_DOWNLOADS
        )

    def download(self, url: str, destination_path: Any, verify: bool = True) -> Any:
        self._pbar_url.update_total(1)
        self._bounds.folders.append(destination_path)
        supervised = start(self._supervise, url, destination_path, verify)
        return downloader.promise.Promise.resolve(supervised)

    def _supervise(self, url: str, folder: Any, verify: bool) -> Any:
        with self._slots:
            self._bounds.last_block = time.monotonic()
            transfer = start(self._sync_download, url, folder, verify)
            while not transfer.done():
                concurrent.futures.wait([transfer], timeout=_POLL_SECONDS)
                silence = time.monotonic() - self._bounds.last_block
                if silence > STALL_SECONDS and not transfer.done():
                    raise DataError(f"{url} sent nothing for {STALL_SECONDS:g} s")
            return transfer.result()
