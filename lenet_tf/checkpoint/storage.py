"""Checkpoint files, written whole or not at all, and verified before they are used.

    write(checkpoint, "checkpoints/step-700")
    find_damage("checkpoints/step-700")      # None, or what is wrong with it
    newest_whole("checkpoints")              # None when none was ever saved

A checkpoint is named by the prefix of its files, such as `checkpoints/step-700` for
`step-700.index` and `step-700.data-00000-of-00001`.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from lenet_tf.errors import CheckpointError
from lenet_tf.files import first_line, flush_to_disk, make_folder, os_errors_as

# What TensorFlow raises for files that are truncated, empty, overwritten or gone.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, OSError)
_NAME = r"(?P<name>(?:step|pending)-(?P<step>[0-9]{1,19}))"
_FILE = re.compile(rf"{_NAME}\.(index|data-[0-9]+-of-[0-9]+)")
_UNFINISHED = re.compile(rf"{_NAME}_temp")


def write(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Writes a checkpoint whole, or not at all.

    When this returns, the files are on the disk, where they survive a power loss.

    Raises:
      CheckpointError: The checkpoint cannot be written, as when the disk is full.
    """
    prefix = pathlib.Path(path)
    try:
        make_folder(prefix.parent)
        _ = checkpoint.save_counter  # created now, so that every file has it
        checkpoint.write(path)
        for file in checkpoint_files(path):
            flush_to_disk(file)
        flush_to_disk(prefix.parent)
    except (tf.errors.OpError, OSError) as error:
        with contextlib.suppress(CheckpointError):
            delete(path)
        others = []
        with contextlib.suppress(CheckpointError):
            others = list_checkpoints(prefix.parent)
        before = ", the one before it is whole" if others else ""
        raise CheckpointError(
            f"{path} cannot be saved{before}: {reason_of(error)}"
        ) from error


def reason_of(error: Exception) -> str:
    """Returns in one line why a checkpoint could not be read or written."""
    reason = getattr(error, "strerror", None) or first_line(error)
    # Without the operations' names that TensorFlow adds.
    return re.sub(r"{{[^}]*}} *| \[Op:\w*\]", "", reason)


def checkpoint_files(path: str) -> list[pathlib.Path]:
    """Returns the files of a checkpoint that exist, the data before the index.

    Raises:
      CheckpointError: The folder cannot be read.
    """
    prefix = pathlib.Path(path)
    starts = (f"{prefix.name}.data-", f"{prefix.name}.index")
    files = _files_in(prefix.parent)
    return sorted(file for file in files if file.name.startswith(starts))


def delete(path: str) -> None:
    """Deletes the files of a checkpoint, half-written ones too, the index first.

    Raises:
      CheckpointError: A file cannot be deleted.
    """
    shutil.rmtree(f"{path}_temp", ignore_errors=True)
    for file in reversed(checkpoint_files(path)):
        with os_errors_as(CheckpointError, f"{file} cannot be deleted"):
            file.unlink(missing_ok=True)


def remove_unfinished(directory: pathlib.Path | str) -> None:
    """Deletes the temporary folders of saves that were killed, if it can.

    Args:
      directory: Folder of checkpoints; it need not exist.

    Raises:
      CheckpointError: The folder cannot be read.
    """
    directory = pathlib.Path(directory)
    with os_errors_as(CheckpointError, f"{directory} cannot be read"):
        entries = list(directory.iterdir()) if directory.exists() else []
    for entry in entries:
        if _UNFINISHED.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def readable_prefix(path: str) -> Iterator[str]:
    """Yields a prefix that TensorFlow can read a checkpoint by.

    TensorFlow treats a prefix as a glob pattern, so it finds no checkpoint in a folder
    named `a[b]` or `a*`. A temporary link then stands in for such a folder.

    Raises:
      CheckpointError: The link cannot be made.
    """
    if not set(path) & set("*?[]\\"):
        yield path
        return
    prefix = pathlib.Path(path).absolute()
    with contextlib.ExitStack() as stack:
        with os_errors_as(CheckpointError, f"{path} cannot be read through a link"):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            link = pathlib.Path(folder, "checkpoints")
            link.symlink_to(prefix.parent, target_is_directory=True)
        yield str(link / prefix.name)


def find_damage(path: str) -> str | None:
    """Returns what is wrong with a checkpoint, or None.

    Every value is read, and its checksum verified.

    Args:
      path: Prefix of the checkpoint's files.

    Raises:
      CheckpointError: This process has no permission to read it.
    """
    files = checkpoint_files(path)
    for kind in (".index", ".data-"):
        if not any(kind in file.name for file in files):
            return f"its {kind.strip('.-')} file is missing"
    for file in files:
        try:
            file.open("rb").close()
        except PermissionError as error:
            raise CheckpointError(
                f"{file} cannot be read: {error.strerror}; ask its owner for access"
            ) from error
        except OSError as error:
            return f"{file.name} cannot be opened: {error.strerror}"
    with readable_prefix(path) as prefix:
        try:
            reader = tf.train.load_checkpoint(prefix)
            for key in reader.get_variable_to_shape_map():
                reader.get_tensor(key)
        except READ_ERRORS as error:
            return reason_of(error)
    return None


def list_checkpoints(directory: pathlib.Path | str) -> list[str]:
    """Returns the prefixes of all checkpoints in a folder, whole or not, newest first.

    Of one step, `pending-...`, saved before the epoch's row of the history is known, is
    older than `step-...`.

    Raises:
      CheckpointError: The folder cannot be read.
    """
    directory = pathlib.Path(directory)
    matches = [_FILE.fullmatch(file.name) for file in _files_in(directory)]
    names = {(int(match["step"]), match["name"]) for match in matches if match}
    return [str(directory / name) for _, name in sorted(names, reverse=True)]


def newest_whole(directory: pathlib.Path | str) -> str | None:
    """Finds the newest checkpoint that is whole.

    The state file `checkpoint` is not trusted: it may be empty, or name what is not
    there. Damaged checkpoints are logged, with the reason, and left as they are. A
    first save that a kill cut short does not count; there is no state file yet then.

    Args:
      directory: Folder of a run's latest checkpoints; it need not exist.

    Returns:
      Prefix of the checkpoint's files, or None when none was ever saved.

    Raises:
      CheckpointError: There are checkpoints, or a state file, but none is whole; or
        they cannot be read.
    """
    directory = pathlib.Path(directory)
    found = list_checkpoints(directory)
    reasons: list[str] = []
    for path in found:
        reason = find_damage(path)
        if reason is None:
            for line in reasons:
                logging.warning("damaged checkpoint passed over: %s", line)
            return path
        reasons.append(f"{pathlib.Path(path).name}: {reason}")
    if any(file.name == "checkpoint" for file in _files_in(directory)):
        reasons = reasons or ["the state file names checkpoints that are not there"]
    elif len(found) == 1 and _is_cut_short(found[0]):
        logging.warning("the first save was cut short, starting afresh: %s", *reasons)
        return None
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {directory} is whole ({'; '.join(reasons)}): put one "
            "back, or move the directory away to start afresh"
        )
    return None


def _is_cut_short(path: str) -> bool:
    """Whether a save was interrupted: its index, written last, is missing or empty.

    After a power loss the data may be empty too.
    """
    files = checkpoint_files(path)
    if not any(file.name.endswith(".index") for file in files):
        return True
    with os_errors_as(CheckpointError, f"{path} cannot be read"):
        return any(file.stat().st_size == 0 for file in files)


def _files_in(directory: pathlib.Path) -> list[pathlib.Path]:
    with os_errors_as(CheckpointError, f"{directory} cannot be read"):
        if not directory.exists():
            return []
        return [path for path in directory.iterdir() if path.is_file()]
