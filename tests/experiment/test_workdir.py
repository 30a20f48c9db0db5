"""Behaviour of lenet_tf.experiment.workdir."""

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
from lenet_tf.experiment.workdir import claim
from lenet_tf.files import read_json, write_csv, write_json, write_text

CONFIG = {"dataset": "mnist", "batch_size": 64, "epochs": 3, "save_steps": None}


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
    with pytest.raises(UsageError, match="holds list: a JSON object is due"):
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


def test_a_claim_makes_the_workdir_with_its_parents_and_config(
    tmp_path: pathlib.Path,
) -> None:
    workdir = tmp_path / "runs" / "one"
    with claim(workdir, CONFIG, set()):
        pass
    assert names(workdir) == [".lock", "config.json"]
    assert read_json(workdir / "config.json") == CONFIG


def test_a_claim_takes_a_directory_that_holds_no_run(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with claim(tmp_path, CONFIG, set()):
        pass
    assert names(tmp_path) == [".lock", "config.json", "notes.txt"]


def test_the_same_configuration_may_claim_again(tmp_path: pathlib.Path) -> None:
    with claim(tmp_path, CONFIG, set()):
        pass
    before = (tmp_path / "config.json").read_bytes()
    with claim(tmp_path, CONFIG, set()):
        pass
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_configuration_is_refused_with_each_key_and_both_values(
    tmp_path: pathlib.Path,
) -> None:
    with claim(tmp_path, CONFIG, set()):
        pass
    other = {**CONFIG, "batch_size": 32, "dataset": "kmnist"}
    with pytest.raises(UsageError) as error, claim(tmp_path, other, {"epochs"}):
        pass
    message = str(error.value)
    assert "batch_size (there 64, now 32)" in message
    assert "dataset (there 'mnist', now 'kmnist')" in message
    assert "epochs" not in message
    assert str(tmp_path) in message
    assert "--workdir" in message
    assert "\n" not in message
    assert read_json(tmp_path / "config.json") == CONFIG


def test_keys_that_only_one_configuration_has_differ(tmp_path: pathlib.Path) -> None:
    with claim(tmp_path, {"old": 1}, set()):
        pass
    with (
        pytest.raises(UsageError, match=r"new \(there None, now 2\), old \(there 1"),
        claim(tmp_path, {"new": 2}, set()),
    ):
        pass


def test_free_keys_may_change_and_the_new_values_are_kept(
    tmp_path: pathlib.Path,
) -> None:
    with claim(tmp_path, CONFIG, set()):
        pass
    longer = {**CONFIG, "epochs": 10, "save_steps": 5}
    with claim(tmp_path, longer, {"epochs", "save_steps"}):
        pass
    assert read_json(tmp_path / "config.json") == longer


def test_a_broken_config_is_refused_and_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"dataset": ')
    with (
        pytest.raises(UsageError, match=r"config\.json cannot be read as JSON"),
        claim(tmp_path, CONFIG, set()),
    ):
        pass
    assert (tmp_path / "config.json").read_text() == '{"dataset": '


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_or_a_path_under_one_is_refused(
    tmp_path: pathlib.Path, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UsageError, match="is not a directory: choose another"),
        claim(tmp_path / "file" / below, CONFIG, set()),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="workdir /proc/run/one cannot be written"),
        claim(pathlib.Path("/proc/run/one"), CONFIG, set()),
    ):
        pass


@pytest.mark.skipif(not os.path.isdir("/proc/self/net"), reason="needs /proc")
def test_a_directory_where_no_file_can_be_made_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="workdir /proc/self/net"),
        claim(pathlib.Path("/proc/self/net"), CONFIG, set()),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(UsageError, match="cannot be written"),
            claim(tmp_path, CONFIG, set()),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)
