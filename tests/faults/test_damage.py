"""Damaged checkpoints are passed over with the reason, and never in silence."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from ends import EXPERIMENT, assert_same_end, leftovers, resume, said, steps_of
from programs import Program, run

import lenet_tf
from lenet_tf.checkpoint.best import BestCheckpoints
from lenet_tf.checkpoint.restore import find_checkpoint
from lenet_tf.checkpoint.storage import newest_whole
from lenet_tf.files import write_csv
from lenet_tf.train.record import RunRecord

DATA = "step-{}.data-00000-of-00001"
STATE = {"checkpoints": "checkpoint", "best": "best.json"}


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def emptied(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def zeroed(path: pathlib.Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: pathlib.Path) -> None:
    """Turns one bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def removed(path: pathlib.Path) -> None:
    path.unlink()


@pytest.fixture
def run_dir(experiment: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of a complete run, with checkpoints at steps 7, 14 and 21."""
    return pathlib.Path(shutil.copytree(experiment, tmp_path / "run"))


@pytest.mark.parametrize("damage", [truncated, emptied, zeroed, flipped, removed])
@pytest.mark.parametrize("file", ["step-{}.index", DATA])
def test_the_newest_whole_checkpoint_is_taken_and_the_bad_one_named(
    run_dir: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[pathlib.Path], None],
    file: str,
) -> None:
    checkpoints = run_dir / "checkpoints"
    damage(checkpoints / file.format(21))
    assert newest_whole(checkpoints) == str(checkpoints / "step-14")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("damaged checkpoint passed over: step-21: ")
    assert len(message) > len("damaged checkpoint passed over: step-21: ") + 10
    if damage is removed:
        kind = "index" if file.endswith("index") else "data"
        assert f"its {kind} file is missing" in message
    damage(checkpoints / file.format(14))
    assert find_checkpoint(run_dir) == str(checkpoints / "step-7")
    damage(checkpoints / file.format(7))
    with pytest.raises(
        lenet_tf.errors.CheckpointError, match="move the directory away"
    ) as error:
        newest_whole(checkpoints)
    for step in (7, 14, 21):
        assert f"step-{step}: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "state", ["", 'model_checkpoint_path: "step-99"\n', "\0\0\0\0", "no proto {{"]
)
def test_the_state_file_is_not_trusted(run_dir: pathlib.Path, state: str) -> None:
    (run_dir / "checkpoints" / "checkpoint").write_text(state)
    assert find_checkpoint(run_dir) == str(run_dir / "checkpoints" / "step-21")


def test_a_state_file_without_any_checkpoint_is_an_error(run_dir: pathlib.Path) -> None:
    for file in (run_dir / "checkpoints").glob("step-*"):
        file.unlink()
    with pytest.raises(lenet_tf.errors.CheckpointError, match="that are not there"):
        newest_whole(run_dir / "checkpoints")


def test_a_run_goes_on_from_the_newest_whole_checkpoint_to_the_same_end(
    run_dir: pathlib.Path, experiment: pathlib.Path
) -> None:
    flipped(run_dir / "checkpoints" / DATA.format(21))
    emptied(run_dir / "checkpoints" / "step-14.index")
    stderr = resume(run_dir, experiment)
    assert "damaged checkpoint passed over: step-21: " in stderr
    assert "damaged checkpoint passed over: step-14: " in stderr
    assert "checkpoints/step-7\n" in stderr


def test_a_damaged_checkpoint_that_is_not_written_again_is_dropped_in_turn(
    run_dir: pathlib.Path, experiment: pathlib.Path
) -> None:
    for file in (run_dir / "checkpoints").glob("step-21.*"):
        file.rename(file.with_name(file.name.replace("21", "17")))
    zeroed(run_dir / "checkpoints" / "step-17.index")
    resume(run_dir, experiment, "--save_steps=4", "--keep=2")
    assert steps_of(run_dir) == [20, 21]


@pytest.mark.parametrize("what", ["damaged", "gone"])
def test_a_run_without_a_whole_checkpoint_is_not_started_afresh(
    run_dir: pathlib.Path, small_mnist: list[str], undisturbed: pathlib.Path, what: str
) -> None:
    shutil.rmtree(run_dir)
    shutil.copytree(undisturbed, run_dir)
    for file in (run_dir / "checkpoints").iterdir():
        if what == "damaged":
            zeroed(file)
        else:
            file.unlink()
    before = (run_dir / "history.csv").read_bytes()
    for command in (("train.py", *small_mnist), ("evaluate.py",)):
        finished = run(*command, f"--workdir={run_dir}")
        assert finished.status == 1
        (line,) = finished.complaints
        assert line.startswith("error: ")
        expected = "is whole" if what == "damaged" else "its checkpoints are gone"
        if command[0] == "evaluate.py" and what == "gone":
            expected = "has no latest checkpoint"
        assert expected in line
    assert (run_dir / "history.csv").read_bytes() == before


def test_what_a_killed_save_has_left_is_cleared_away(
    run_dir: pathlib.Path, experiment: pathlib.Path
) -> None:
    for directory in ("checkpoints", "best"):
        left = run_dir / directory / "step-18_temp"
        left.mkdir()
        (left / "part-00000-of-00001.data-00000-of-00001.tempstate42").write_bytes(b"x")
        (run_dir / directory / f".{STATE[directory]}.4242.tmp").write_text("half")
    shutil.copy(run_dir / "best" / DATA.format(14), run_dir / "best" / DATA.format(18))
    assert len(leftovers(run_dir)) == 6
    resume(run_dir, experiment)
    assert not (run_dir / "best" / DATA.format(18)).exists()


def test_best_survives_rotation_and_restarts(
    tmp_path: pathlib.Path, experiment: pathlib.Path
) -> None:
    best = json.loads((experiment / "best" / "best.json").read_text())["checkpoints"]
    (entry,) = best
    assert entry["step"] == 14
    for epochs in (1, 2, 6):
        flags = [f"--epochs={epochs}", "--keep=1", "--learning_rate=0.01"]
        assert run(EXPERIMENT, f"--workdir={tmp_path}", *flags).status == 0
    assert steps_of(tmp_path) == [42]
    (entry,) = json.loads((tmp_path / "best" / "best.json").read_text())["checkpoints"]
    path = find_checkpoint(tmp_path, "best")
    reader = tf.train.load_checkpoint(path)
    rows = json.loads(reader.get_tensor("record/.ATTRIBUTES/py_state"))["rows"]
    assert rows[-1]["step"] == entry["step"]
    assert rows[-1]["val_accuracy"] == entry["value"]
    reader = tf.train.load_checkpoint(find_checkpoint(tmp_path))
    rows = json.loads(reader.get_tensor("record/.ATTRIBUTES/py_state"))["rows"]
    assert entry["value"] == max(row["val_accuracy"] for row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[1]", "a JSON object is expected"),
        ("{}", "is damaged: put a copy back, or move"),
        ('{"checkpoints": 3}', "is damaged"),
        ('{"checkpoints": [{"step": "../../x", "value": 1}]}', "is damaged"),
        ('{"checkpoints": [{"step": 7, "value": "high"}]}', "is damaged"),
        ('{"checkpoints": [7]}', "is damaged"),
    ],
)
def test_a_broken_list_of_the_best_is_an_error(
    run_dir: pathlib.Path, content: str, message: str
) -> None:
    (run_dir / "best" / "best.json").write_text(content)
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        find_checkpoint(run_dir, "best")
    assert "\n" not in str(error.value)
    best = BestCheckpoints(tf.train.Checkpoint(), run_dir / "best", "val_accuracy")
    with pytest.raises(lenet_tf.UsageError, match=message):
        best.clean()


def test_a_run_with_a_broken_list_of_the_best_ends_before_it_trains(
    run_dir: pathlib.Path,
) -> None:
    (run_dir / "best" / "best.json").write_text("{}")
    finished = run(EXPERIMENT, f"--workdir={run_dir}", "--epochs=4")
    assert finished.status == 1
    (line,) = finished.stderr.splitlines()
    assert "best.json is damaged: put a copy back, or move" in line


def test_a_damaged_best_is_named_when_a_run_goes_on(run_dir: pathlib.Path) -> None:
    emptied(run_dir / "best" / DATA.format(14))
    finished = run(EXPERIMENT, f"--workdir={run_dir}", "--epochs=4")
    assert finished.status == 0
    assert f"best checkpoint {run_dir}/best/step-14 is damaged: " in finished.stderr
    assert find_checkpoint(run_dir, "best") == str(run_dir / "best" / "step-28")


def test_the_best_by_another_metric_are_not_mixed(run_dir: pathlib.Path) -> None:
    best = BestCheckpoints(tf.train.Checkpoint(), run_dir / "best", "val_loss", "min")
    with pytest.raises(
        lenet_tf.errors.CheckpointError, match="'val_accuracy', not by 'val_l"
    ):
        best.clean()


def test_a_damaged_best_checkpoint_is_an_error(
    undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir = pathlib.Path(shutil.copytree(undisturbed, tmp_path / "run"))
    (data,) = (workdir / "best").glob("*.data-*")
    for damage in (flipped, truncated, removed):
        damage(data)
        finished = run("evaluate.py", f"--workdir={workdir}", "--checkpoint=best")
        assert finished.status == 1
        (line,) = finished.stderr.splitlines()
        assert "/best/step-13 is damaged: " in line


def test_variables_that_do_not_match_are_named(experiment: pathlib.Path) -> None:
    """Missing, surplus and of another shape."""
    path = find_checkpoint(experiment)
    model = tf.Module()
    model.hidden = lenet_tf.nn.Dense(36, 21, (0, 1))
    model.added = tf.Variable(tf.zeros([3]))
    checkpoint = tf.train.Checkpoint(model=model, step=tf.Variable(0, dtype=tf.int64))
    with pytest.raises(lenet_tf.errors.CheckpointError) as error:
        lenet_tf.checkpoint.restore_checkpoint(checkpoint, path)
    message = str(error.value)
    assert "it lacks model/added" in message
    assert "the program has no metrics/examples, " in message
    assert "model/hidden/w ([36, 20], in the program [36, 21])" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "{}",
        '{"rows": 3, "seconds": 1}',
        '{"rows": [3], "seconds": 1}',
        '{"rows": [{"loss": "__import__(\'os\')"}], "seconds": 1}',
        '{"rows": [], "seconds": "long"}',
    ],
)
def test_a_hostile_record_in_a_checkpoint_is_an_error(
    tmp_path: pathlib.Path, record: str
) -> None:
    class Hostile(tf.train.experimental.PythonState):
        def serialize(self) -> str:
            return record

        def deserialize(self, string_value: bytes) -> None:
            raise AssertionError

    path = tf.train.Checkpoint(record=Hostile()).write(str(tmp_path / "step-1"))
    with pytest.raises(lenet_tf.errors.CheckpointError, match="does not fit") as error:
        lenet_tf.checkpoint.restore_checkpoint(
            tf.train.Checkpoint(record=RunRecord()), path
        )
    assert "\n" not in str(error.value)


def test_a_full_disk_while_history_is_written_leaves_the_old_file(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The first row is written; the device is full from then on."""
    program = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    history = tmp_path / "history.csv"
    program.until(history.exists)
    (tmp_path / f".history.csv.{program.pid}.tmp").symlink_to("/dev/full")
    finished = program.wait()
    assert finished.status == 1
    assert finished.stderr.splitlines()[-1] == (
        f"error: {history} cannot be written: No space left on device"
    )
    assert len(history.read_text().splitlines()) == 2
    assert steps_of(tmp_path) == [7, 14]
    resume(tmp_path, experiment)


def test_a_csv_that_cannot_be_written_leaves_the_old_one(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, [{"epoch": 1}])
    (tmp_path / f".history.csv.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(lenet_tf.UsageError, match="No space left on device"):
        write_csv(path, [{"epoch": 1}, {"epoch": 2}])
    assert path.read_text() == "epoch\n1\n"
    assert leftovers(tmp_path) == []


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken_over(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = Program(EXPERIMENT, f"--workdir={tmp_path}", "--slow=train")
    said(first, "in train")
    second = run(EXPERIMENT, f"--workdir={tmp_path}")
    assert second.status == 1
    (line,) = second.stderr.splitlines()
    holder = f"process {first.pid} on {socket.gethostname()}"
    assert f"is in use by {holder}: wait for its end" in line
    first.send(signal.SIGKILL)
    first.wait()
    assert holder in (tmp_path / ".lock").read_text()  # stale
    resume(tmp_path, experiment)


def test_a_checkpoint_holds_every_bit_under_background_saving(
    experiment: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = ["--background", "--save_steps=1", "--steps_per_loop=1", "--keep=30"]
    assert run(EXPERIMENT, f"--workdir={tmp_path}", *flags).status == 0
    assert steps_of(tmp_path) == list(range(1, 22))
    for step in (7, 14):
        ours, theirs = (
            tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step-{step}"))
            for workdir in (tmp_path, experiment)
        )
        for key in theirs.get_variable_to_shape_map():
            if not key.startswith(("record/", "_CHECKPOINTABLE")):
                np.testing.assert_array_equal(
                    ours.get_tensor(key), theirs.get_tensor(key)
                )
    assert_same_end(tmp_path, experiment)
