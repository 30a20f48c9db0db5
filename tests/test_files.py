"""Behaviour of lenet_tf.files."""

from __future__ import annotations

import csv
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import pytest

from lenet_tf.errors import UsageError
from lenet_tf.files import (
    read_json,
    remove_temporaries,
    replacing,
    write_csv,
    write_json,
    write_text,
)


def names(directory: pathlib.Path) -> list[str]:
    """What lies in a directory, hidden files too."""
    return sorted(path.name for path in directory.iterdir())


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "first, and longer")
    write_text(path, "zweite ü\n")
    assert path.read_bytes() == "zweite ü\n".encode()
    assert names(tmp_path) == ["note.txt"]


def test_a_reader_who_has_the_file_open_keeps_the_old_content(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with path.open() as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert read_json(path) == {"a": 2}


def test_a_value_that_json_cannot_hold_leaves_the_old_file(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": 2, "b": object()})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["result.json"]


def test_text_that_cannot_be_encoded_leaves_the_old_file(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new " * 10_000 + "\ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_failing_rename_leaves_no_temporary_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(UsageError, match="taken cannot be written"):
        write_text(tmp_path / "taken", "text")
    assert names(tmp_path) == ["taken"]


def test_json_keeps_the_order_of_keys_and_every_bit_of_a_float(
    tmp_path: pathlib.Path,
) -> None:
    value = {"z": 0.1 + 0.2, "a": math.pi, "m": 5e-324, "n": [1, None, "x"]}
    write_json(tmp_path / "x.json", value)
    read = read_json(tmp_path / "x.json")
    assert list(read.items()) == list(value.items())


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\x00\xff"])
def test_what_is_not_json_is_refused_with_its_path(
    tmp_path: pathlib.Path, text: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"x\.json cannot be read as JSON"):
        read_json(path)


def test_a_file_that_is_not_there_is_refused_with_its_path(
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(UsageError, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")


def test_json_that_is_no_object_is_refused_with_what_it_is(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="holds list: a JSON object is expected"):
        read_json(tmp_path / "x.json")


def test_numbers_of_a_csv_read_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    losses = [*rng.normal(size=50).tolist(), 0.1 + 0.2, 1e-300, 5e-324, math.inf]
    rows = [{"epoch": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    path = tmp_path / "history.csv"
    write_csv(path, rows)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["epoch", "loss"]
    assert [int(row["epoch"]) for row in read] == list(range(1, len(losses) + 1))
    assert [float(row["loss"]) for row in read] == losses
    assert names(tmp_path) == ["history.csv"]


def test_a_csv_that_cannot_be_written_leaves_the_old_one(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, [{"epoch": 1}])
    bad: list[Any] = [{"epoch": 1}, "no row"]
    with pytest.raises(AttributeError):
        write_csv(path, bad)
    assert path.read_text() == "epoch\n1\n"
    assert names(tmp_path) == ["history.csv"]


def test_a_folder_in_the_place_of_the_temporary_file_is_an_error_of_one_line(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / f".x.json.{os.getpid()}.tmp").mkdir()
    with pytest.raises(UsageError, match=r"x\.json cannot be written: Is a directory"):
        write_json(tmp_path / "x.json", {"a": 1})


def test_a_folder_that_is_not_there_is_an_error_of_one_line(
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        write_text(tmp_path / "none" / "x.txt", "text")


def test_other_writers_may_fill_the_temporary_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with replacing(str(path)) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["picture.png"]


def test_only_temporary_files_of_the_given_names_are_removed(
    tmp_path: pathlib.Path,
) -> None:
    ours = [".result.json.41.tmp", ".a.png.7.tmp"]
    others = [".result.json.tmp", ".x.tmp", "result.json.41.tmp", ".result.json.4x.tmp"]
    for name in (*ours, *others):
        (tmp_path / name).write_text("half")
    (tmp_path / ".result.json.42.tmp").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".result.json.41.tmp").write_text("half")
    remove_temporaries(tmp_path, {"result.json"})
    kept = {".result.json.42.tmp", "below", *others}
    assert set(names(tmp_path)) == kept | {".a.png.7.tmp"}
    remove_temporaries(tmp_path)
    assert set(names(tmp_path)) == kept
    assert names(tmp_path / "below") == [".result.json.41.tmp"]
    remove_temporaries(tmp_path / "none")


def test_a_file_that_may_not_be_read_is_an_error_of_one_line(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UsageError, match="cannot be read as JSON: Is a directory"):
        read_json(tmp_path / "x.json")
