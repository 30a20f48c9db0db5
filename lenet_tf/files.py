"""Files that are written whole or not at all.

    write_json(workdir / "result.json", {"test_accuracy": 0.985})
    with replacing(workdir / "report" / "curves.png") as temporary:
        figure.savefig(temporary, format="png")

The content goes to a temporary file in the same folder, is flushed to the disk, and is
then renamed. A kill or a power loss at any moment leaves the old content or the new.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lenet_tf.errors import UsageError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9]+\.tmp")


@contextlib.contextmanager
def os_errors_as(kind: type[UsageError], message: str) -> Iterator[None]:
    """Turns an OSError raised in the block into a one-line `UsageError`.

    Args:
      kind: Class of the error to raise.
      message: Description of what failed; the system's reason is appended.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{message}: {error.strerror or first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its class when it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def replacing(path: pathlib.Path | str) -> Iterator[pathlib.Path]:
    """Yields a temporary path; the file written there then replaces `path`.

    When the block raises, the temporary file is removed and `path` stays as it was.

    Args:
      path: File to make or to replace; its folder must exist.

    Raises:
      UsageError: The file cannot be written, as when the disk is full.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os_errors_as(UsageError, f"{path} cannot be written"):
            yield temporary
            flush_to_disk(temporary)
            os.replace(temporary, path)
            flush_to_disk(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def flush_to_disk(path: pathlib.Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk.

    Raises:
      OSError: The path cannot be opened or flushed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; their files are safe.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def make_folder(path: pathlib.Path) -> None:
    """Makes a folder and its missing parents, and flushes their names to the disk.

    Raises:
      OSError: A folder cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        flush_to_disk(folder.parent)


def remove_temporaries(
    folder: pathlib.Path, names: Collection[str] | None = None
) -> None:
    """Removes the temporary files that killed processes have left in a folder.

    Args:
      folder: Folder to clean, without its subfolders; it need not exist.
      names: Names of the files whose temporary files are removed; None for all.

    Raises:
      UsageError: The folder cannot be read, or a file in it cannot be removed.
    """
    with os_errors_as(UsageError, f"{folder} cannot be cleaned"):
        if not folder.exists():
            return
        for path in folder.iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            ours = match and (names is None or match["name"] in names)
            if ours and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def write_text(path: pathlib.Path | str, text: str) -> None:
    """Writes a file in UTF-8, whole or not at all.

    Raises:
      UsageError: The file cannot be written, as when the disk is full.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path | str, value: Mapping[str, Any]) -> None:
    """Writes a JSON object, indented, with its keys in the order given.

    Raises:
      UsageError: The file cannot be written.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: pathlib.Path | str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UsageError: The file cannot be read, is not JSON, or is not a JSON object.
    """
    try:
        with os_errors_as(UsageError, f"{path} cannot be read as JSON"):
            value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UsageError(f"{path} holds {kind}: a JSON object is expected")
    return value


def write_csv(path: pathlib.Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows as CSV; numbers are written so that they read back bit for bit.

    Args:
      path: File to make or to replace.
      rows: Rows, each a mapping of column names to values; a column that a row lacks
        is left empty.

    Raises:
      UsageError: The file cannot be written.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
