"""A run directory for a user's own trainer: stopped, killed, complete, refused."""

from __future__ import annotations

import inspect
import json
import pathlib
import random
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from programs import Finished, Program

import lenet_tf
from lenet_tf.errors import CheckpointError
from lenet_tf.experiment.run_directory import FitOptions

OWN_RUN = str(pathlib.Path(__file__).parent / "own_run.py")


def start(workdir: pathlib.Path, **environment: str) -> Program:
    return Program(OWN_RUN, str(workdir), environment=environment)


def finish(workdir: pathlib.Path, **environment: str) -> Finished:
    finished = start(workdir, **environment).wait()
    assert finished.status == 0, finished.stderr
    return finished


def end_of(workdir: pathlib.Path) -> dict[str, object]:
    """All that a run has come to, bit for bit, but for the time it took."""
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    reader = tf.train.load_checkpoint(path)
    end: dict[str, object] = {
        key: np.asarray(reader.get_tensor(key)).tobytes()
        for key in reader.get_variable_to_shape_map()
        if not key.startswith(("record/", "_CHECKPOINTABLE"))
    }
    for file in ("config.json", "history.csv", "best/best.json", "report/curves.png"):
        end[file] = (workdir / file).read_bytes()
    result = json.loads((workdir / "result.json").read_text())
    end["result"] = {k: result[k] for k in ("test_loss", "mean", "steps")}
    end["leftovers"] = [p for p in workdir.rglob("*") if p.name.endswith("tmp")]
    return end


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(workdir)
    return workdir


def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(
    undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    moments = random.Random(0)
    workdir = tmp_path / "run"
    for _ in range(5):
        program = start(workdir, SLOW="0.1")
        program.until((workdir / "config.json").exists)
        time.sleep(moments.uniform(0, 2))
        program.send(signal.SIGKILL)
        program.wait()
    finish(workdir)
    assert end_of(workdir) == end_of(undisturbed)


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_a_signal_saves_and_ends_the_program_with_its_status(
    replicas: str, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "run"
    program = start(workdir, SLOW="0.1", REPLICAS=replicas)
    program.until(lambda: any((workdir / "checkpoints").glob("step-4.index")))
    program.send(signal.SIGTERM)
    stopped = program.wait()
    assert stopped.status == 143
    assert stopped.stdout == ""
    assert "Traceback" not in stopped.stderr
    *_, line = stopped.stderr.splitlines()
    assert line.startswith(f"stopped by SIGTERM; saved {workdir}/checkpoints/step-")
    assert not (workdir / "result.json").exists()
    finish(workdir, REPLICAS=replicas)
    finish(tmp_path / "other", REPLICAS=replicas)
    assert end_of(workdir) == end_of(tmp_path / "other")


def test_a_complete_run_is_only_read(undisturbed: pathlib.Path) -> None:
    kept = [p for p in undisturbed.rglob("*") if p.name not in (".lock", "config.json")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = finish(undisturbed)
    assert "at " not in again.stderr
    assert json.loads(again.stdout) == json.loads(
        (undisturbed / "result.json").read_text()
    )
    assert before == {path: path.stat().st_mtime_ns for path in kept[1:] + kept[:1]}


def test_with_more_epochs_it_goes_on(
    undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = json.loads(finish(tmp_path / "run", EPOCHS="1").stdout)
    assert first["steps"] == 7
    finish(tmp_path / "run")
    assert end_of(tmp_path / "run") == end_of(undisturbed)


def line_trainer() -> lenet_tf.Trainer:
    model = tf.Module()
    model.w = tf.Variable(0.0)

    def forward(model: tf.Module, batch: dict, training: bool) -> dict:
        return {"loss": (model.w - batch["x"]) ** 2}

    return lenet_tf.Trainer(model, lenet_tf.SGD(0.1), forward)


DATA = lenet_tf.Batches({"x": np.ones(8, np.float32)}, 4)


def test_an_action_that_asks_for_it_ends_the_program_with_status_0(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    def stop(moment: lenet_tf.Moment) -> None:
        raise lenet_tf.StopRequested()

    with (
        pytest.raises(SystemExit) as ended,
        lenet_tf.Workdir(tmp_path, {"epochs": 3}) as run,
    ):
        run.fit(line_trainer(), DATA, epochs=3, actions=[stop])
    assert ended.value.code == 0
    assert "stopped; saved" in capsys.readouterr().err


def test_a_signal_after_the_last_step_still_ends_the_program(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """Or it would be lost, and the next run of a sweep begin."""
    with (
        pytest.raises(SystemExit) as ended,
        lenet_tf.Workdir(tmp_path, {"epochs": 1}) as run,
    ):
        run.fit(line_trainer(), DATA, epochs=1)
        signal.raise_signal(signal.SIGTERM)
        run.write_result({})
    assert ended.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"
    with lenet_tf.Workdir(tmp_path, {"epochs": 1}) as run:
        assert run.result is not None


def test_an_error_frees_the_directory(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError), lenet_tf.Workdir(tmp_path, {}):
        raise ZeroDivisionError
    with lenet_tf.Workdir(tmp_path, {}) as run:
        assert run.result is None


def test_settings_of_other_types_are_the_same_when_they_come_back(
    tmp_path: pathlib.Path,
) -> None:
    settings = {"sizes": (3, 4), "rate": np.float32(0.5), "folder": pathlib.Path("a")}
    for _ in range(2):
        with lenet_tf.Workdir(tmp_path, settings) as run:
            run.fit(line_trainer(), DATA, epochs=1)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {"sizes": [3, 4], "rate": 0.5, "folder": "a"}


def fit_without_checkpoints(workdir: pathlib.Path) -> None:
    (workdir / "history.csv").write_text("epoch\n")
    with lenet_tf.Workdir(workdir, {}) as run:
        run.fit(line_trainer(), DATA, epochs=1)


def fit_with_another_saver(workdir: pathlib.Path) -> None:
    with lenet_tf.Workdir(workdir, {}) as run:
        run.fit(line_trainer(), DATA, epochs=1, saver=lenet_tf.Saver(workdir / "x"))


def write_a_model(workdir: pathlib.Path) -> None:
    with lenet_tf.Workdir(workdir, {}) as run:
        run.write_result({"model": tf.Module()})


def write_before_fit(workdir: pathlib.Path) -> None:
    with lenet_tf.Workdir(workdir, {}) as run:
        run.write_result({"a": 1})


def claim_twice(workdir: pathlib.Path) -> None:
    with lenet_tf.Workdir(workdir, {}), lenet_tf.Workdir(workdir, {}):
        pass


def change_settings(workdir: pathlib.Path) -> None:
    for rate in (1, 2):
        with lenet_tf.Workdir(workdir, {"rate": rate}) as run:
            run.fit(line_trainer(), DATA, epochs=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (fit_without_checkpoints, "its checkpoints are gone"),
        (fit_with_another_saver, "saver is for .*/x: give one for"),
        (write_a_model, "model is .*: give numbers"),
        (claim_twice, "is in use by process"),
        (change_settings, r"rate \(there 1, now 2\)"),
        (lambda d: lenet_tf.Workdir(d, {"a": 1}, free={"b"}), "free has b, but .* a"),
        (lambda d: lenet_tf.Workdir(d, {"f": print}), "f is <built-in"),
        (
            lambda d: lenet_tf.Workdir(d, {}).fit(line_trainer(), DATA, epochs=1),
            r"fit needs `with",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    call: Callable, message: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises((lenet_tf.UsageError, CheckpointError), match=message) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)


def test_fit_takes_the_arguments_of_the_trainer() -> None:
    own = {*inspect.signature(lenet_tf.Workdir.fit).parameters} - {"options", "trainer"}
    there = {*inspect.signature(lenet_tf.Trainer.fit).parameters} - {"poll"}
    assert own | FitOptions.__annotations__.keys() == there


def test_runs_in_one_process_do_not_hold_each_other(tmp_path: pathlib.Path) -> None:
    for fold in range(3):
        with lenet_tf.Workdir(tmp_path / str(fold), {"fold": fold}) as run:
            run.fit(line_trainer(), DATA, epochs=1)
            result = run.write_result({"fold": fold})
        assert result["fold"] == fold
        assert run.result == result
