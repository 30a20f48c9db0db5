"""The workdir is the run: its files are written whole or not at all.

    write_json(workdir / "result.json", {"test_accuracy": 0.985})
    with claim(workdir, config, free):    # makes it, or finds the run it holds
        ...

Every file is written to a temporary name beside it and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.files import read_json, write_json


@contextlib.contextmanager
def claim(
    workdir: pathlib.Path, config: Mapping[str, Any], free: set[str]
) -> Iterator[None]:
    """Holds a workdir for a run of one configuration, while the context lasts.

    Args:
      workdir: made with its parents; gets a config.json.
      config: the run's settings, JSON values.
      free: settings that may change when a run is resumed.

    Raises:
      UsageError: it is a file, cannot be written, is in use by another process, or
        holds a run of other settings.
    """
    _make(workdir)
    with _locked(workdir):
        for left in workdir.rglob(".*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        path = workdir / "config.json"
        if path.exists():
            _check_same(workdir, read_json(path), config, free)
        write_json(path, config)
        yield


def _make(workdir: pathlib.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"workdir {workdir} is not a directory: choose another --workdir"
        ) from error
    except OSError as error:
        raise UsageError(
            f"workdir {workdir} cannot be written ({error.strerror}): choose another "
            "--workdir"
        ) from error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Locks for this process.

    The lock is the system's (flock), so it goes with the process, however that ends;
    the file only tells who holds it, and stays.
    """
    path = workdir / ".lock"
    try:
        opened = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - with, below
    except OSError as error:
        raise UsageError(
            f"{path} cannot be opened: {error.strerror}; remove it"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UsageError(
                f"workdir {workdir} is in use by {holder}: wait for its end, or choose "
                "another --workdir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)


def _check_same(
    workdir: pathlib.Path,
    there: Mapping[str, Any],
    config: Mapping[str, Any],
    free: set[str],
) -> None:
    differing = [
        f"{key} (there {there.get(key)!r}, now {config.get(key)!r})"
        for key in sorted({*there, *config} - free)
        if there.get(key) != config.get(key)
    ]
    if differing:
        raise UsageError(
            f"workdir {workdir} holds a run of another configuration: "
            f"{', '.join(differing)}; go on with its settings, or choose another "
            "--workdir"
        )
