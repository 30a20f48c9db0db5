"""Actions that write a run for other programs: TensorBoard, JSON lines, profiles."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import urllib.request
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from event_reader import events, hyperparameters

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.train import JsonLines, Profile, TensorBoard

X = np.linspace(-1, 1, 40, dtype=np.float32)


class Killed(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run without a save, as a kill does."""


def die_at(step: int) -> lenet_tf.train.Action:
    def action(moment: lenet_tf.Moment) -> None:
        if moment.step >= step:
            raise Killed

    return action


def fit(workdir: pathlib.Path, *actions: Any, epochs: int = 2) -> lenet_tf.Trainer:
    model = tf.Module()
    model.slope = tf.Variable(0.0, name="slope")

    def forward(model: tf.Module, batch: Any, training: bool) -> dict[str, tf.Tensor]:
        error = model.slope * batch["x"] - 3 * batch["x"]
        return {"loss": error**2, "size": tf.abs(error)}

    watch = ["gradient_norm", "learning_rate"]
    trainer = lenet_tf.Trainer(
        model, lenet_tf.Adam(0.1), forward, steps_per_loop=2, watch=watch
    )
    data = lenet_tf.Batches({"x": X}, 4, seed=0)  # 10 steps an epoch
    trainer.fit(
        data,
        epochs=epochs,
        validation=lenet_tf.Batches({"x": X[::3]}, 4),
        saver=lenet_tf.Saver(workdir, steps=4),
        actions=actions,
        progress=False,
    )
    return trainer


def test_tensorboard_gets_each_loop_and_each_row(tmp_path: pathlib.Path) -> None:
    board = TensorBoard(tmp_path / "tb", settings={"rate": 0.1}, histograms=True)
    trainer = fit(tmp_path / "run", board)
    train, held_out = events(tmp_path / "tb/train"), events(tmp_path / "tb/validation")
    history = trainer.record.history()
    assert [step for step, _ in train["loss"]] == list(range(2, 21, 2))
    assert [step for step, _ in held_out["loss"]] == [10, 20]
    rows = [value for step, value in train["loss"] if step in (10, 20)]
    np.testing.assert_allclose(rows, history["loss"], rtol=1e-6)
    np.testing.assert_allclose(
        [value for _, value in held_out["size"]], history["val_size"], rtol=1e-6
    )
    assert {"examples_per_second", "gradient_norm", "learning_rate"} <= train.keys()
    assert [step for step, _ in train["weights/slope"]] == [10, 20]  # histograms
    assert b'"rate": 0.1' in events(tmp_path / "tb")["settings"][0][1]


def test_variables_of_one_name_have_a_histogram_each(tmp_path: pathlib.Path) -> None:
    model = tf.Module()
    model.parts = [tf.Variable(float(i), name="w") for i in range(2)]
    trainer = lenet_tf.Trainer(
        model,
        lenet_tf.SGD(0.1),
        lambda model, batch, training: {
            "loss": (tf.add_n(model.parts) * batch["x"]) ** 2
        },
    )
    board = TensorBoard(tmp_path, histograms=True)
    data = lenet_tf.Batches({"x": X}, 4)
    trainer.fit(data, epochs=2, actions=[board], progress=False)
    found = events(tmp_path / "train")
    for tag in ("weights/w", "weights/w_2"):
        assert [step for step, _ in found[tag]] == [10, 20]


def test_settings_are_written_once_and_are_those_of_the_last_start(
    tmp_path: pathlib.Path,
) -> None:
    fixed = {"kind": "line", "deep": False, "layers": 1, "seed": None, "sizes": [3]}
    for rate, epochs in ((0.1, 1), (0.1, 1), (0.2, 2)):
        board = TensorBoard(tmp_path / "tb", settings={**fixed, "rate": rate})
        fit(tmp_path / "run", board, epochs=epochs)
    simple = {"kind": "line", "deep": False, "layers": 1, "rate": 0.2}
    assert hyperparameters(tmp_path / "tb") == [simple]
    ((step, text),) = events(tmp_path / "tb")["settings"]
    assert step == 0
    assert b'"seed": null' in text
    assert b'"rate": 0.2' in text


def test_a_resumed_run_doubles_no_point(tmp_path: pathlib.Path) -> None:
    def actions() -> list[Any]:
        return [TensorBoard(tmp_path / "tb"), JsonLines(tmp_path / "loops.jsonl")]

    with pytest.raises(Killed):
        fit(tmp_path / "run", *actions(), die_at(14))
    assert events(tmp_path / "tb/train")["loss"][-1][0] == 14
    with (tmp_path / "loops.jsonl").open("a") as file:
        file.write('{"step": 16, "lo')  # cut off in the middle
    (path,) = (tmp_path / "tb/train").glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-3])
    fit(tmp_path / "run", *actions())  # from step 12
    fit(tmp_path / "undisturbed/run", TensorBoard(tmp_path / "undisturbed/tb"))
    for run in ("train", "validation"):
        ours, theirs = (
            events(tmp_path / "tb" / run),
            events(tmp_path / "undisturbed/tb" / run),
        )
        for found in (ours, theirs):
            found.pop("examples_per_second", None)
        assert ours == theirs
    lines = (tmp_path / "loops.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(2, 21, 2))


def test_the_server_shows_curves_and_compares_runs(tmp_path: pathlib.Path) -> None:
    final = {}
    for name, epochs in (("a", 1), ("b", 2)):
        board = TensorBoard(tmp_path / "tb" / name, settings={"epochs": epochs})
        trainer = fit(tmp_path / name, board, epochs=epochs)
        final[epochs] = trainer.record.rows[-1]["val_loss"]
    command = [sys.executable, "-m", "tensorboard.main"]
    command += ["--logdir", str(tmp_path / "tb")]
    with subprocess.Popen(
        [*command, "--port=0", "--host=127.0.0.1", "--load_fast=false"],
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            root = f"{found[0]}/data/plugin"  # type: ignore[index]
            with urllib.request.urlopen(f"{root}/scalars/tags") as page:
                tags = json.load(page)
            assert tags.keys() == {
                f"{name}/{run}" for name in "ab" for run in ("train", "validation")
            }
            query = "run=b%2Fvalidation&tag=loss"
            with urllib.request.urlopen(f"{root}/scalars/scalars?{query}") as page:
                assert [step for _, step, _ in json.load(page)] == [10, 20]
            asked = {"allowedStatuses": ["STATUS_UNKNOWN"], "sliceSize": 9}
            request = urllib.request.Request(
                f"{root}/hparams/session_groups",
                json.dumps({"startIndex": 0, "colParams": [], **asked}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as page:
                groups = json.load(page)["sessionGroups"]
            shown = {
                group["hparams"]["epochs"]: value["value"]
                for group in groups
                for value in group["metricValues"]
                if value["name"] == {"group": "validation", "tag": "loss"}
            }
            assert shown == pytest.approx(final)
        finally:
            server.terminate()


def test_a_line_of_json_tells_a_loop_and_its_row(tmp_path: pathlib.Path) -> None:
    def spoil(moment: lenet_tf.Moment) -> None:
        moment.metrics["size"] = float("nan")  # type: ignore[index]

    fit(tmp_path / "run", spoil, JsonLines(tmp_path / "new/loops.jsonl"), epochs=1)
    lines = (tmp_path / "new/loops.jsonl").read_text().splitlines()
    first, *_, last = map(json.loads, lines)
    assert {"step", "epoch", "seconds", "examples_per_second", "loss"} <= first.keys()
    assert first["size"] is None
    assert "row" not in first
    assert last["row"]["epoch"] == 1
    assert "val_loss" in last["row"]


def test_a_profile_of_some_steps(tmp_path: pathlib.Path) -> None:
    fit(tmp_path / "run", Profile(tmp_path / "profile", 4, 8))
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    for name in (b"inner loop", b"ResourceApplyAdam"):
        assert name in content
    with pytest.raises(UsageError, match="start is 8 and stop 4"):
        Profile(tmp_path, 8, 4)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    for action in (
        TensorBoard(tmp_path / "file" / "tb"),
        JsonLines(tmp_path / "file" / "x.jsonl"),
    ):
        with pytest.raises(UsageError, match="cannot be written") as error:
            fit(tmp_path / "run", action)
        assert "\n" not in str(error.value)
