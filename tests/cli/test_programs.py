"""The programs, as their user meets them."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from event_reader import events, hyperparameters
from programs import SCRIPTS, run

import lenet_tf
from lenet_tf.experiment.settings import settings_of

SMALL = ("--validation_examples=59000", "--epochs=1", "--num_replicas=1")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir in which the reference recipe has trained one epoch on real MNIST."""
    workdir = tmp_path_factory.mktemp("runs") / "deep" / "reference"
    finished = run("train.py", "--epochs=1", f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    assert "61,706 parameters" in finished.stdout
    assert "Traceback" not in finished.stderr
    assert "epoch 1/1  loss" in finished.stderr
    return workdir


def test_one_epoch_of_the_reference_passes_80_percent(
    reference: pathlib.Path,
) -> None:
    (row,) = csv.DictReader((reference / "history.csv").open())
    assert float(row["val_accuracy"]) > 0.8
    result = json.loads((reference / "result.json").read_text())
    assert result["test_accuracy"] > 0.8
    for name in ("val_accuracy", "val_loss"):
        assert result[name] == float(row[name])
    counts = {k: result[k] for k in result if k.endswith("examples")}
    assert counts == {
        "test_examples": 10_000,
        "train_examples": 58_000,
        "validation_examples": 2_000,
    }
    assert result["parameters"] == 61_706
    assert result["versions"]["tensorflow"]


def test_a_run_leaves_the_files_it_promises_and_no_others(
    reference: pathlib.Path,
) -> None:
    assert sorted(path.name for path in reference.iterdir()) == [
        ".lock",
        "best",
        "checkpoints",
        "config.json",
        "history.csv",
        "report",
        "report.html",
        "result.json",
    ]
    assert (reference / "report" / "curves.png").read_bytes()[1:4] == b"PNG"
    assert json.loads((reference / "config.json").read_text())["batch_size"] == 64


@pytest.mark.parametrize("which", ["latest", "best"])
def test_evaluate_prints_the_figures_of_the_run(
    reference: pathlib.Path, which: str
) -> None:
    result = json.loads((reference / "result.json").read_text())
    finished = run("evaluate.py", f"--workdir={reference}", f"--checkpoint={which}")
    assert finished.status == 0, finished.stderr
    assert finished.stdout.startswith(
        f"test accuracy {result['test_accuracy']:.2%}, test loss "
        f"{result['test_loss']:.4f}, 10,000 test examples"
    )


def test_training_makes_no_network_attempt_once_data_is_prepared(
    tmp_path: pathlib.Path,
) -> None:
    lenet_tf.prepare("mnist")
    program = (
        "import runpy, socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "socket.getaddrinfo = refuse\n"
        f"sys.argv = ['train.py', *{SMALL!r}, '--workdir={tmp_path / 'run'}']\n"
        f"runpy.run_path({str(SCRIPTS / 'train.py')!r}, run_name='__main__')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    assert "10,000 test examples" in finished.stdout


def test_plain_tfds_reads_what_was_prepared() -> None:
    lenet_tf.prepare("mnist")
    dataset = tfds.load("mnist", split="test", download=False)
    first = next(iter(dataset.take(1)))
    assert first["image"].shape == (28, 28, 1)
    assert dataset.cardinality().numpy() == 10_000
    ours = lenet_tf.load("mnist").test
    assert int(first["label"]) in np.unique(ours.label)


def test_start_up_is_silent(tmp_path: pathlib.Path) -> None:
    finished = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", *SMALL, f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    lines = [line.split()[2] for line in finished.stderr.splitlines()]
    assert lines == ["data", "network", "steps", "directory", "epoch"]


def test_help_lists_the_flags_by_group_with_defaults() -> None:
    finished = run("train.py", "--help")
    assert finished.status == 0
    for title in ("Data:", "Model:", "Training:", "Devices:", "Run directory:"):
        assert f"\n{title}\n" in finished.stdout
    text = " ".join(finished.stdout.split())
    for name, declared in settings_of(lenet_tf.Config).items():
        assert f"{name}\n" in finished.stdout
        default = "none" if declared.default is None else declared.default
        assert f"(default {default})" in text
        assert declared.help in text
    assert "pdb" not in text
    assert "stderrthreshold" not in text


@pytest.mark.parametrize("name", ["train", "evaluate", "prepare_data", "launch_local"])
def test_help_shows_how_a_program_is_called(name: str) -> None:
    finished = run(f"{name}.py", "--help")
    assert (finished.status, finished.stderr) == (0, "")
    assert f"python -m lenet_tf {name}" in finished.stdout
    assert "--" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        ([], 0, "launch_local", ""),
        (["--help"], 0, "prepare_data", ""),
        (["trian"], 2, "", "error: there is no program 'trian': try train\n"),
        (
            ["train", "--epoch=3"],
            2,
            "",
            "error: there is no flag --epoch: did you mean --epochs?\n",
        ),
    ],
    ids=str,
)
def test_the_console_script_runs_programs_by_name(
    arguments: list[str], status: int, out: str, err: str
) -> None:
    code = "from lenet_tf.__main__ import main; main()"
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (finished.returncode, finished.stderr) == (status, err)
    assert out in finished.stdout


def test_a_workdir_of_another_configuration_is_refused(
    reference: pathlib.Path,
) -> None:
    before = (reference / "config.json").read_bytes()
    finished = run("train.py", f"--workdir={reference}", "--batch_size=32", "--seed=1")
    assert finished.status == 1
    (line,) = finished.stderr.splitlines()
    assert "batch_size (there 64, now 32), seed (there 0, now 1)" in line
    assert (reference / "config.json").read_bytes() == before


def test_noresume_does_not_overwrite_a_run(reference: pathlib.Path) -> None:
    finished = run("train.py", f"--workdir={reference}", "--noresume")
    assert finished.status == 1
    assert "holds a run already" in finished.stderr


def test_a_run_can_be_watched(few_digits: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = ["--tensorboard", "--loops", f"--workdir={tmp_path}"]
    flags += [f"--data_dir={few_digits}", "--validation_examples=500", "--epochs=1"]
    watched = {"gradient_norm", "learning_rate"}
    flags.append(f"--watch={','.join(sorted(watched))}")
    finished = run("train.py", "--num_replicas=1", *flags)
    assert finished.status == 0, finished.stderr
    lines = (tmp_path / "loops.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["row"]["epoch"] == 1
    board = tmp_path / "tensorboard"
    metrics = {"loss", "accuracy", "weights/c1/w", "examples_per_second", *watched}
    assert metrics <= events(board / "train").keys()
    assert watched <= json.loads(lines[0]).keys()
    assert (tmp_path / "report.html").read_text().count("<h3>Learning rate</h3>") == 1
    shown = {"loss", "accuracy", "mistakes", "mistakes/list"}
    assert shown <= events(board / "validation").keys()
    (settings,) = hyperparameters(board)
    assert settings["epochs"] == 1
    assert "momentum" not in settings  # Adam has none
