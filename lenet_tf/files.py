"""Files that are written whole or not at all.

    write_json(workdir / "result.json", {"test_accuracy": 0.985})

Every file is written to a temporary name beside it and renamed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lenet_tf.errors import UsageError


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically.

    Raises:
      UsageError: it cannot be written, as when the disk is full; the old one is whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
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
    except (OSError, ValueError, RecursionError) as error:
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
