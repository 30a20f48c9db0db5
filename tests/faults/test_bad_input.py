"""Bad input: one line that shows what would be right, and nothing half-written.

TF_CONFIG and what else workers are given is in tests/distributed.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from ends import leftovers
from idx_writer import write_idx_dir
from programs import BENCHMARKS, SCRIPTS, run

import lenet_tf
from lenet_tf.checkpoint.restore import find_checkpoint

FLAGS: list[tuple[str, int, str]] = [
    ("--dataset=mnits", 1, "mnist"),
    ("--dataset=", 1, "dataset"),
    ("--dataset=../mnist", 1, "dataset"),
    ("--activation=swish", 2, "tanh|relu|leaky_relu"),
    ("--subsampling=min", 2, "average_sigmoid|average|max"),
    ("--kernel=7x7", 2, "5x5|two_3x3"),
    ("--optimizer=rmsprop", 2, "adam|"),
    ("--batch_size=0", 2, "batch_size=0"),
    ("--batch_size=-64", 2, "batch_size=-64"),
    ("--batch_size=many", 2, "batch_size=many"),
    ("--eval_batch_size=0", 2, "eval_batch_size=0"),
    ("--epochs=-1", 2, "epochs=-1"),
    ("--epochs=1.5", 2, "epochs=1.5"),
    ("--learning_rate=0", 2, "must be above 0"),
    ("--learning_rate=-0.1", 2, "must be above 0"),
    ("--learning_rate=nan", 2, "must be above 0"),
    ("--learning_rate=inf", 2, "must be above 0"),
    ("--learning_rate=fast", 2, "learning_rate=fast"),
    ("--momentum=1", 2, "below 1"),
    ("--momentum=nan", 2, "below 1"),
    ("--momentum=-0.5", 2, "momentum=-0.5"),
    ("--clip_norm=-1", 2, "must be above 0"),
    ("--clip_norm=nan", 2, "must be above 0"),
    ("--seed=99999999999", 1, "of 32 bits"),
    ("--seed=x", 2, "seed=x"),
    ("--num_replicas=none", 2, "a number above 0, or auto"),
    ("--num_replicas=-2", 2, "a number above 0, or auto"),
    ("--num_replicas=99", 1, "ask for at most that many"),
    ("--num_replicas=2 --batch_size=1", 1, "at least num_replicas"),
    ("--steps_per_loop=0", 2, "steps_per_loop=0"),
    ("--steps_per_loop=-5", 2, "steps_per_loop=-5"),
    ("--save_steps=0", 2, "save_steps=0"),
    ("--save_steps=-1", 2, "save_steps=-1"),
    ("--save_seconds=-1", 2, "save_seconds=-1"),
    ("--save_seconds=nan", 2, "must be a number of seconds"),
    ("--keep=0", 2, "keep=0"),
    ("--validation_examples=-1", 2, "validation_examples=-1"),
    ("--validation_examples=60000", 1, "60000"),
    ("--num_classes=7", 1, "mnist has 10"),
    ("--num_classes=-1", 2, "num_classes=-1"),
    ("--channels=3", 1, "mnist has 1"),
    ("--resume=perhaps", 2, "resume"),
    ("--epoch=3", 2, "epochs"),
    ("--flagfile=/nowhere", 2, "/nowhere"),
    ("3", 2, "is not a flag"),
    ("--workdir=", 2, "must name a directory"),
    ("--workdir=/dev/null", 1, "choose another --workdir"),
    ("--workdir=/dev/null/run", 1, "choose another --workdir"),
    ("--workdir=/proc/run", 1, "/proc/run"),
    (f"--workdir=/tmp/{'x' * 300}", 1, "File name too long"),
    ("--data_dir=/dev/null", 1, "must be a directory"),
    ("--data_dir=gs://bucket/data", 1, "a directory of this machine"),
    ("--idx_dir=/nowhere --data_dir={tmp}/data", 1, "/nowhere"),
    ("--idx_dir=/dev/null --data_dir={tmp}/data", 1, "folder with four IDX files"),
    ("--idx_dir={tmp} --data_dir={tmp}/data", 1, "it has no train-images"),
]


def only_error(stderr: str) -> str:
    """The one line of an error."""
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(("flags", "status", "message"), FLAGS)
def test_a_bad_flag_is_one_line_and_leaves_nothing(
    flags: str, status: int, message: str, tmp_path: pathlib.Path
) -> None:
    before = os.getcwd()
    workdir = tmp_path / "run"
    given = flags.replace("{tmp}", str(tmp_path)).split(" ")
    finished = run("train.py", f"--workdir={workdir}", *given)
    assert message in only_error(finished.stderr)
    assert finished.status == status
    assert finished.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert os.getcwd() == before


@pytest.mark.parametrize(
    ("program", "flags", "status", "message"),
    [
        ("evaluate.py", "--workdir={tmp}", 1, "train one there first"),
        ("evaluate.py", "--workdir=/nowhere", 1, "train one there first"),
        ("evaluate.py", "--workdir=/dev/null", 1, "holds no run"),
        ("evaluate.py", "--checkpoint=worst", 2, "latest|best"),
        ("evaluate.py", "--batch=3", 2, "batch"),
        ("prepare_data.py", "--dataset=mnits", 1, "mnist"),
        ("prepare_data.py", "--data_dir=/dev/null", 1, "directory"),
        ("prepare_data.py", "--data_dir={tmp}/d --idx_dir=/nowhere", 1, "/nowhere"),
        ("prepare_data.py", "mnist", 2, "is not a flag"),
        (str(BENCHMARKS / "soak.py"), "--kills=-1", 2, "kills=-1"),
        (str(BENCHMARKS / "memory.py"), "--epochs=2", 2, "epochs=2"),
    ],
)
def test_the_other_programs_do_likewise(
    program: str, flags: str, status: int, message: str, tmp_path: pathlib.Path
) -> None:
    finished = run(program, *flags.replace("{tmp}", str(tmp_path)).split(" "))
    assert message in only_error(finished.stderr)
    assert finished.status == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TFDS_DATA_DIR": "/dev/null"}, "directory"),
        ({"TFDS_DATA_DIR": "s3://bucket"}, "a directory of this machine"),
        ({"TFDS_DATA_DIR": "/proc/data", "https_proxy": "http://127.0.0.1:9"}, "/proc"),
    ],
)
def test_a_bad_environment_is_one_line(
    environment: dict[str, str], message: str, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "run"
    finished = run("train.py", f"--workdir={workdir}", environment=environment)
    assert message in only_error(finished.stderr)
    assert finished.status == 1
    assert not workdir.exists()


def idx_of(change: Callable[[bytes], bytes]) -> Callable[[pathlib.Path], None]:
    """Makes an IDX folder of which the training images are changed."""

    def write(folder: pathlib.Path) -> None:
        write_idx_dir(folder)
        path = folder / "train-images-idx3-ubyte"
        path.write_bytes(change(path.read_bytes()))

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (idx_of(lambda data: data[:-1]), "train-images-idx3-ubyte"),
        (idx_of(lambda data: b""), "train-images-idx3-ubyte"),
        (idx_of(lambda data: b"\0\0\x0d" + data[3:]), "train-images-idx3-ubyte"),
        (idx_of(lambda data: data[:4] + b"\xff" * 12 + data[16:]), "train-images"),
        (idx_of(lambda data: b"<!DOCTYPE html>" + data), "train-images-idx3-ubyte"),
        (lambda folder: folder.mkdir(), "idx"),
    ],
    ids=["cut", "empty", "type", "huge", "page", "none"],
)
def test_a_bad_data_file_is_one_line_and_prepares_nothing(
    write: Callable[[pathlib.Path], None], message: str, tmp_path: pathlib.Path
) -> None:
    write(tmp_path / "idx")
    flags = [f"--data_dir={tmp_path / 'data'}", f"--idx_dir={tmp_path / 'idx'}"]
    finished = run("prepare_data.py", *flags)
    assert message in only_error(finished.stderr)
    assert finished.status == 1
    assert not (tmp_path / "data").exists()


def digest(workdir: pathlib.Path) -> str:
    """Of all checkpoints."""
    files = sorted(workdir.glob("checkpoints/step*"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def config(**settings: object) -> Callable[[pathlib.Path], None]:
    """Edits config.json by hand."""

    def edit(workdir: pathlib.Path) -> None:
        path = workdir / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return edit


def text(name: str, content: str | bytes) -> Callable[[pathlib.Path], None]:
    """Overwrites a file."""

    def write(workdir: pathlib.Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (workdir / name).write_bytes(data)

    return write


def directory(name: str) -> Callable[[pathlib.Path], None]:
    """Puts a directory in place of a file."""

    def make(workdir: pathlib.Path) -> None:
        (workdir / name).unlink(missing_ok=True)
        (workdir / name).mkdir()

    return make


@pytest.mark.parametrize(
    ("spoil", "train", "evaluate"),
    [
        (config(epochs="many"), None, "setting epochs is 'many': int is due"),
        (config(batch_size=32), "batch_size (there 32", None),
        (config(learning_rate=float("nan")), "learning_rate", "learning_rate is nan"),
        (config(learning_rate=-1), "learning_rate (there -1", "learning_rate is -1"),
        (config(turbo=True), "turbo (there True", "there is no setting turbo"),
        (config(dataset="mnits"), "dataset (there 'mnits'", "mnist"),
        (config(data_dir="/dev/null"), None, "must be a directory"),
        (text("config.json", ""), "config.json cannot be read", "cannot be read"),
        (text("config.json", "[]"), "a JSON object is due", "a JSON object is due"),
        (text("config.json", b"\xff\xfe\0"), "cannot be read", "cannot be read"),
        (text("config.json", "{" * 3), "cannot be read as JSON", "cannot be read"),
        (text("config.json", "[" * 10**5), "cannot be read as JSON", "cannot be read"),
        (directory("config.json"), "cannot be read as JSON", "cannot be read"),
        (directory(".lock"), ".lock cannot be opened", None),
        (directory("history.csv"), "history.csv cannot be written", None),
        (directory("result.json"), "result.json cannot be written", None),
        (directory("report/curves.png"), "curves.png cannot be written", None),
        (text("best/best.json", "{}"), "best.json is damaged", None),
    ],
)
def test_a_spoilt_workdir_is_one_line(
    undisturbed: pathlib.Path,
    small_mnist: list[str],
    tmp_path: pathlib.Path,
    spoil: Callable[[pathlib.Path], None],
    train: str | None,
    evaluate: str | None,
) -> None:
    workdir = pathlib.Path(shutil.copytree(undisturbed, tmp_path / "run"))
    spoil(workdir)
    before = digest(workdir)
    for message, command in (
        (train, ["train.py", *small_mnist]),
        (evaluate, ["evaluate.py"]),
    ):
        if message is None:
            continue
        finished = run(*command, f"--workdir={workdir}")
        assert finished.status == 1, finished.stderr
        lines = [s for s in finished.stderr.splitlines() if "resumed from" not in s]
        assert message in only_error("\n".join(lines))
        assert leftovers(workdir) == []
        assert digest(workdir) == before


def test_a_full_standard_output_is_one_line(undisturbed: pathlib.Path) -> None:
    script = SCRIPTS / "evaluate.py"
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [sys.executable, script, f"--workdir={undisturbed}", "--verbosity=-1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert finished.returncode == 1
    assert only_error(finished.stderr) == (
        "error: the standard output cannot be written: No space left on device"
    )


def digits(count: int = 20) -> dict[str, np.ndarray]:
    """A few black images."""
    image = np.zeros([count, 28, 28, 1], np.uint8)
    return {"image": image, "label": np.zeros(count, np.int32)}


def fit(data: object, **options: object) -> None:
    """Trains LeNet-5 for an epoch."""
    trainer = lenet_tf.Trainer(lenet_tf.LeNet5(), lenet_tf.SGD(0.1))
    trainer.fit(lenet_tf.Batches(data, 10, **options), epochs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lenet_tf.LeNet5(num_classes=1), "at least 2"),
        (lambda: lenet_tf.LeNet5(activation="swish"), "choose one of tanh"),
        (lambda: lenet_tf.SGD(float("nan")), "above 0"),
        (lambda: lenet_tf.SGD(0.1, 1.5), r"in \[0, 1\)"),
        (lambda: lenet_tf.make_strategy("two"), "a number above 0, or auto"),
        (lambda: lenet_tf.make_strategy(0), "a number above 0, or auto"),
        (lambda: lenet_tf.make_strategy(99), "ask for at most that many"),
        (lambda: lenet_tf.Batches(digits(), 0), "at least 1"),
        (lambda: lenet_tf.Batches({}, 8), "equal"),
        (lambda: lenet_tf.Batches([1, 2], 8), "dict of arrays"),
        (lambda: lenet_tf.Batches(digits(0), 8), "no examples"),
        (lambda: lenet_tf.Batches({"x": np.zeros(3), "y": np.zeros(4)}, 8), "equal"),
        (lambda: lenet_tf.Batches(tf.data.Dataset.range(5), 8), "map them to dicts"),
        (lambda: fit({**digits(), "image": np.zeros([20, 40, 40, 1])}), "32x32"),
        (lambda: fit({**digits(), "image": np.zeros([20, 28, 28, 3], "u1")}), "shape"),
        (lambda: lenet_tf.every_steps(0), "at least 1"),
        (
            lambda: lenet_tf.checkpoint.LatestCheckpoints(None, pathlib.Path(), 0),
            "at least one",
        ),
        (lambda: lenet_tf.Config(batch_size=0), "at least 1"),
        (lambda: lenet_tf.Config(save_steps=0), "at least 1"),
        (lambda: lenet_tf.Config(momentum=float("nan")), r"in \[0, 1\)"),
        (lambda: lenet_tf.load("mnist", validation_examples=-1), "at least 0"),
        (lambda: lenet_tf.load("mnist", data_dir="/dev/null"), "directory"),
        (lambda: find_checkpoint(pathlib.Path(), "worst"), "'latest' or 'best'"),
    ],
)
def test_a_bad_call_is_an_error_of_one_line(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [-1, 10, 2**31 - 1])
def test_a_label_that_is_no_class_does_not_train_in_silence(label: int) -> None:
    data = digits()
    data["label"][3] = label
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label}"):
        fit(data)
