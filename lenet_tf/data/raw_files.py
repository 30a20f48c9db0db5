"""Finds IDX files in a folder, and checks whether a download's host answers.

    find_idx("my_folder")["train"]           # (images file, labels file)
    check = start(host_trouble, url)         # runs in a thread
    settle(check, deadline)                  # None, or why the host cannot be used

A check that has no answer by its deadline is left behind, never waited for.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lenet_tf.errors import DataError

CHECK_SECONDS = 4.0
_T = TypeVar("_T")


def find_idx(
    idx_dir: str | os.PathLike[str], emnist_split: str | None = None
) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Finds the four IDX files in a folder, under any of their usual names.

    Args:
      idx_dir: Folder with the files.
      emnist_split: Part of EMNIST, such as "letters", whose file names are accepted
        as well; None for other datasets.

    Returns:
      Paths, as {"train": (images, labels), "test": (images, labels)}.

    Raises:
      DataError: `idx_dir` is not a folder, or a file is missing.
    """
    try:
        folder = pathlib.Path(idx_dir).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # as for ~nosuch, or too long a name
        is_folder = False
    if not is_folder:
        raise DataError(
            f"idx_dir is {one_line(os.fspath(idx_dir))}: it must be a folder with four "
            "IDX files that can be read"
        )
    prefixes = {"train": ["train"], "test": ["t10k"]}
    if emnist_split:
        for split, names in prefixes.items():
            names.insert(0, f"emnist-{emnist_split}-{split}")

    missing = []

    def first_file(names: list[str], kind: str) -> pathlib.Path:
        stems = [f"{n}-{kind}-ubyte" for n in names]
        stems += [f"{n}-{kind}-ubyte".replace("-idx", ".idx") for n in names]
        candidates = [folder / (s + suffix) for s in stems for suffix in ("", ".gz")]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            missing.append(stems[0])
        return found or folder

    try:
        files = {
            split: (first_file(names, "images-idx3"), first_file(names, "labels-idx1"))
            for split, names in prefixes.items()
        }
    except OSError as error:
        raise DataError(f"idx_dir is {folder}: {error.strerror}") from error
    if missing:
        raise DataError(
            f"idx_dir is {folder}: it has no {', '.join(missing)} (plain or .gz)"
        )
    return files


def start(function: Callable[..., _T], *args: Any) -> concurrent.futures.Future[_T]:
    """Calls a function in a daemon thread, and returns the future of its result.

    A host name look-up, for one, has no time limit; it must not keep the program from
    ending, as a thread of ThreadPoolExecutor would.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def settle(check: concurrent.futures.Future[str | None], deadline: float) -> str | None:
    """Returns a check's result, or "no answer" after `deadline` (time.monotonic)."""
    try:
        return check.result(timeout=max(0.0, deadline - time.monotonic()))
    except concurrent.futures.TimeoutError:
        return f"no answer in {CHECK_SECONDS:g} s"


def host_trouble(url: str) -> str | None:
    """Requests `url` as TFDS would, through the proxies of the environment.

    Returns:
      None if the host can be used, else the reason in one line.
    """
    import requests  # TFDS downloads with it: same proxies, same certificates.

    try:
        with requests.get(url, stream=True, timeout=CHECK_SECONDS) as response:
            if response.ok or response.status_code in (404, 405):
                return None  # The host is there; TFDS will report a missing file.
            return f"answered HTTP {response.status_code}"
    except (requests.RequestException, ValueError) as error:
        cause = getattr(error.args[0], "reason", None) if error.args else None
        return one_line(f"{type(error).__name__}: {cause or error}")


def one_line(text: str, length: int = 200) -> str:
    """Joins the lines of a message, and cuts it to `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
