"""The workdir is the run: its files are written whole or not at all.

    write_json(workdir / "result.json", {"test_accuracy": 0.985})
    claim(workdir, config)                # makes it, or finds the run it holds

Every file is written to a temporary name beside it and renamed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from lenet_tf.errors import UsageError


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file.

    Raises:
      UsageError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds {type(value).__name__}: a JSON object is due")
    return value


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows as CSV atomically, numbers so that they read back bit for bit."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def claim(workdir: pathlib.Path, config: Mapping[str, Any], free: set[str]) -> None:
    """Makes a workdir for a configuration, or checks that it is of the same one.

    Args:
      workdir: made with its parents; gets a config.json.
      config: the run's settings, JSON values.
      free: settings that may change when a run is resumed.

    Raises:
      UsageError: it is a file, cannot be written, or holds a run of other settings.
    """
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
    path = workdir / "config.json"
    if path.exists():
        there = read_json(path)
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
    write_json(path, config)
