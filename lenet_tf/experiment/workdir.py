"""The workdir is the run: who holds it, and which settings it was made with.

    with claim("runs/mine", {"learning_rate": 0.1, "epochs": 3}, free={"epochs"}):
        trainer.fit(batches, epochs=3, saver=Saver("runs/mine"))

The first claim makes the folder and its config.json; later ones must have the same
settings, but for the free ones. While the context lasts no other process gets it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import socket
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.files import (
    make_folder,
    os_errors_as,
    read_json,
    remove_temporaries,
    write_json,
)

# Folder below the workdir -> the files that we write there by renaming; None for all.
_WRITTEN: Mapping[str, Collection[str] | None] = {
    "": ("config.json", "history.csv", "result.json", "report.html"),
    "checkpoints": ("checkpoint",),
    "best": ("best.json",),
    "report": None,
}
_MOST_SHOWN = 60  # characters of a value in a message


@contextlib.contextmanager
def claim(
    workdir: pathlib.Path | str,
    config: Mapping[str, Any],
    free: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Holds a workdir for a run of one configuration, while the context lasts.

    What a killed process has left of half-written files is removed. A workdir in which
    no step was saved may be claimed with other settings.

    Args:
      workdir: Folder of the run, made with its parents; gets a config.json.
      config: Settings of the run, JSON values.
      free: Names of the settings that may change when a run is resumed.
      defaults: Values of settings that the config.json of an older version may lack.

    Raises:
      UsageError: The workdir is no folder, cannot be written, is in use by another
        process, or holds a run of other settings.
    """
    workdir = pathlib.Path(workdir)
    _make(workdir)
    with _locked(workdir):
        for folder, names in _WRITTEN.items():
            remove_temporaries(workdir / folder, names)
        check_settings(workdir, config, free, defaults)
        write_json(workdir / "config.json", config)
        yield


def check_settings(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    free: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raises UsageError where `claim` would, without writing anything."""
    folder = workdir.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "it is not writable" if folder.is_dir() else "it is not a directory"
        raise UsageError(
            f"workdir {workdir} cannot be made in {folder}: {reason}; choose another "
            "workdir"
        )
    path = workdir / "config.json"
    with os_errors_as(UsageError, f"workdir {workdir} cannot be read"):
        known = path.exists()
        saved = any((workdir / "checkpoints").glob("*.index"))
        begun = saved or (workdir / "history.csv").exists()
    if known and begun:
        there = {**(defaults or {}), **read_json(path)}
        _check_same(workdir, there, config, free)
    elif saved and not known:
        raise UsageError(
            f"workdir {workdir} holds checkpoints, but its config.json is gone: "
            "put it back, or choose another workdir"
        )


def _make(workdir: pathlib.Path) -> None:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(workdir)):
        raise UsageError(
            f"workdir {workdir} is a URL: choose a folder of this machine, such as one "
            "where the storage is mounted"
        )
    try:
        str(workdir).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"workdir {str(workdir)!r} is not a name in UTF-8: choose another workdir"
        ) from error
    try:
        make_folder(workdir)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"workdir {workdir} is not a directory: choose another workdir"
        ) from error
    except OSError as error:
        raise UsageError(
            f"workdir {workdir} cannot be written ({error.strerror}): choose another "
            "workdir"
        ) from error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Locks the workdir for this process.

    The lock is the system's (flock), so it ends with the process, however that ends.
    The file stays; its text tells who holds the lock.
    """
    lock = _open_lock(workdir / ".lock")
    try:
        with os_errors_as(UsageError, f"{workdir / '.lock'} cannot be locked"):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(lock, 200).decode(errors="replace").strip()
                raise UsageError(
                    f"workdir {workdir} is in use by {holder or 'another process'}: "
                    "wait for its end, or choose another workdir"
                ) from error
            os.ftruncate(lock, 0)
            os.write(
                lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode()
            )
        yield
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def _open_lock(path: pathlib.Path) -> int:
    """Opens a lock file: no link is followed, a pipe does not block, nothing is cut."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.open(path, flags, 0o666)
    except OSError as error:
        reason = "a symbolic link" if path.is_symlink() else error.strerror
        raise UsageError(
            f"{path} cannot be opened: {reason}; remove it, or choose another workdir"
        ) from error
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise UsageError(f"{path} is not a regular file: remove it")
    return lock


def _check_same(
    workdir: pathlib.Path,
    there: Mapping[str, Any],
    config: Mapping[str, Any],
    free: Collection[str],
) -> None:
    differing = [
        f"{key} (there {_shown(there, key)}, now {_shown(config, key)})"
        for key in sorted({*there, *config} - set(free))
        if key not in there or key not in config or there[key] != config[key]
    ]
    if differing:
        raise UsageError(
            f"workdir {workdir} holds a run of another configuration: "
            f"{', '.join(differing)}; go on with its settings, or choose another "
            "workdir"
        )


def _shown(settings: Mapping[str, Any], key: str) -> str:
    """Returns a setting's value for a message, cut when it is long."""
    if key not in settings:
        return "not known"
    text = repr(settings[key])
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
