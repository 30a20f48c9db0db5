"""Behaviour of lenet_tf.experiment.workdir."""

from __future__ import annotations

import os
import pathlib

import pytest

from lenet_tf.errors import UsageError
from lenet_tf.experiment.workdir import claim
from lenet_tf.files import read_json

CONFIG = {"dataset": "mnist", "batch_size": 64, "epochs": 3, "save_steps": None}


def begin(workdir: pathlib.Path) -> None:
    """Leaves the trace of a run whose first epoch is done."""
    (workdir / "history.csv").write_text("epoch\n1\n")


def names(directory: pathlib.Path) -> list[str]:
    """What lies in a directory, hidden files too."""
    return sorted(path.name for path in directory.iterdir())


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
    begin(tmp_path)
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
    assert "choose another workdir" in message
    assert "--" not in message
    assert "\n" not in message
    assert read_json(tmp_path / "config.json") == CONFIG


def test_keys_that_only_one_configuration_has_differ(tmp_path: pathlib.Path) -> None:
    begin(tmp_path)
    with claim(tmp_path, {"old": 1}, set()):
        pass
    with (
        pytest.raises(
            UsageError, match=r"new \(there not known, now 2\), old \(there 1, now"
        ),
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
    begin(tmp_path)
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


def test_a_workdir_may_be_given_as_text(tmp_path: pathlib.Path) -> None:
    with claim(str(tmp_path / "run"), CONFIG):
        pass
    assert read_json(tmp_path / "run" / "config.json") == CONFIG


def test_only_half_written_files_of_a_run_are_cleared_away(
    tmp_path: pathlib.Path,
) -> None:
    ours = [
        ".config.json.12.tmp",
        ".history.csv.12.tmp",
        "checkpoints/.checkpoint.12.tmp",
        "best/.best.json.12.tmp",
        "report/.curves.png.12.tmp",
    ]
    others = [
        ".x.tmp",
        ".notes.txt.12.tmp",
        "checkpoints/.mine.12.tmp",
        "other-run/.history.csv.12.tmp",
        "other-run/checkpoints/.checkpoint.12.tmp",
        "report/.editor.tmp",
    ]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    (tmp_path / ".result.json.12.tmp").mkdir()
    with claim(tmp_path, CONFIG):
        pass
    assert [name for name in ours if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == []


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_refused_and_its_target_left_alone(
    tmp_path: pathlib.Path, there: bool
) -> None:
    target, workdir = tmp_path / "precious.txt", tmp_path / "run"
    workdir.mkdir()
    if there:
        target.write_text("precious")
    (workdir / ".lock").symlink_to(target)
    with (
        pytest.raises(
            UsageError, match=r"\.lock cannot be opened: a symbolic link; rem"
        ),
        claim(workdir, CONFIG),
    ):
        pass
    assert target.exists() == there
    assert not there or target.read_text() == "precious"


def test_a_lock_that_is_a_pipe_or_a_folder_is_refused(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with (
        pytest.raises(UsageError, match=r"\.lock is not a regular file: remove it"),
        claim(tmp_path, CONFIG),
    ):
        pass
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(UsageError, match=r"\.lock cannot be opened: Is a directory"),
        claim(tmp_path, CONFIG),
    ):
        pass


def test_a_refused_claim_leaves_the_holders_name(tmp_path: pathlib.Path) -> None:
    with claim(tmp_path, CONFIG):
        holder = (tmp_path / ".lock").read_text()
        with (
            pytest.raises(UsageError, match=f"is in use by {holder.strip()}: wait"),
            claim(tmp_path, CONFIG),
        ):
            pass
        assert (tmp_path / ".lock").read_text() == holder
    assert (tmp_path / ".lock").read_text() == ""


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(
    tmp_path: pathlib.Path,
) -> None:
    begin(tmp_path)
    newer = {**CONFIG, "nesterov": False}
    with claim(tmp_path, CONFIG):
        pass
    with (
        pytest.raises(UsageError, match=r"nesterov \(there False, now True\)"),
        claim(tmp_path, {**CONFIG, "nesterov": True}, defaults=newer),
    ):
        pass
    with claim(tmp_path, newer, defaults=newer):
        pass
    assert read_json(tmp_path / "config.json") == newer
    with (
        pytest.raises(UsageError, match=r"nesterov \(there False, now not known\)"),
        claim(tmp_path, CONFIG, defaults=CONFIG),
    ):
        pass


def test_checkpoints_without_their_config_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-7.index").write_bytes(b"x")
    with (
        pytest.raises(
            UsageError, match=r"config\.json is gone: put it back, or choose"
        ),
        claim(tmp_path, CONFIG),
    ):
        pass
    assert not (tmp_path / "config.json").exists()


def test_a_long_value_is_not_echoed_whole(tmp_path: pathlib.Path) -> None:
    begin(tmp_path)
    with claim(tmp_path, {"note": "x" * 1_000_000}):
        pass
    with (
        pytest.raises(UsageError, match="now 'short'") as error,
        claim(tmp_path, {"note": "short"}),
    ):
        pass
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "s3://bucket/run"])
def test_a_url_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, workdir: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UsageError, match="is a URL: choose a folder"),
        claim(workdir, {}),
    ):
        pass
    assert names(tmp_path) == []


def test_a_name_that_is_no_text_is_refused(tmp_path: pathlib.Path) -> None:
    workdir = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(UsageError, match="is not a name in UTF-8"), claim(workdir, {}):
        pass
    assert names(tmp_path) == []


def test_a_workdir_in_which_nothing_was_trained_may_have_other_settings(
    tmp_path: pathlib.Path,
) -> None:
    """As after a setting that was found to be wrong when the step was traced."""
    with claim(tmp_path, {"shift": 15.0}):
        pass
    with claim(tmp_path, {"shift": 1.5}):
        pass
    assert read_json(tmp_path / "config.json") == {"shift": 1.5}
