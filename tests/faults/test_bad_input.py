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
from programs import BENCHMARKS, ROOT, SCRIPTS, run

import lenet_tf
from lenet_tf.checkpoint.restore import find_checkpoint

GOLDEN = ROOT / "tests" / "experiment" / "golden" / "run"

FLAGS: list[tuple[str, int, str]] = [
    ("--dataset=mnits", 2, "mnist"),
    ("--dataset=", 2, "the name of a TFDS dataset"),
    ("--dataset=../mnist", 2, "dataset"),
    ("--dataset=mnïst", 2, "the name of a TFDS dataset"),
    ("--dataset=\udcff\udcfe", 2, "UTF-8"),
    ("--activation=swish", 2, "choose one of tanh, relu, leaky_relu"),
    ("--subsampling=min", 2, "choose one of average_sigmoid, average, max"),
    ("--kernel=7x7", 2, "choose one of 5x5, two_3x3"),
    ("--initial=undo_sigmoid --subsampling=max", 2, "choose average_sigmoid"),
    ("--optimizer=adagrad", 2, "choose one of adam, adamw"),
    ("--batch_size=0", 2, "batch_size is 0: it must be a whole number of at least 1"),
    ("--batch_size=-64", 2, "batch_size is -64"),
    ("--batch_size=many", 2, "batch_size is 'many'"),
    ("--batch_size=12345678901234567890", 2, "of 32 bits"),
    ("--eval_batch_size=0", 2, "eval_batch_size is 0"),
    ("--epochs=-1", 2, "epochs is -1"),
    ("--epochs=1.5", 2, "epochs is '1.5'"),
    ("--learning_rate=0", 2, "it must be a number above 0"),
    ("--learning_rate=-0.1", 2, "it must be a number above 0"),
    ("--learning_rate=nan", 2, "it must be a number above 0"),
    ("--learning_rate=inf", 2, "it must be a number above 0"),
    ("--learning_rate=1e-300", 2, "it is 0 in float32"),
    ("--learning_rate=fast", 2, "learning_rate is 'fast'"),
    ("--ema=2", 2, "above 0 and below 1, or none"),
    ("--dropout=1.5", 2, "of at least 0 and below 1"),
    ("--momentum=1", 2, "below 1"),
    ("--momentum=nan", 2, "below 1"),
    ("--momentum=-0.5", 2, "momentum is -0.5"),
    ("--optimizer=sgd --weight_decay=0.1", 2, "choose optimizer adamw"),
    ("--weight_decay=0.1", 2, "adam does not use it"),
    ("--warmup=0.3", 2, "choose schedule cosine or one_cycle"),
    ("--recipe=fast --schedule=constant --warmup=0.3", 2, "constant does not use it"),
    ("--milestones=x", 2, "such as 0.5,0.75"),
    ("--milestones=0.2,0.2", 2, "such as 0.5,0.75"),
    ("--schedule=piecewise --decay=1e300", 2, "decay is 1e+300"),
    ("--schedule=piecewise --decay=1e30", 2, "rate"),
    ("--shift=1e38", 2, "at most 16"),
    ("--scale=1e30", 2, "at most 4"),
    ("--shear=90", 2, "at most 60"),
    ("--clip_norm=-1", 2, "above 0"),
    ("--clip_norm=nan", 2, "above 0"),
    ("--seed=99999999999", 2, "of 32 bits"),
    ("--seed=x", 2, "seed is 'x'"),
    ("--num_replicas=none", 2, "a whole number of at least 1, or auto"),
    ("--num_replicas=-2", 2, "a whole number of at least 1, or auto"),
    ("--num_replicas=99", 2, "ask for at most that many"),
    ("--num_replicas=2 --batch_size=1", 2, "at least num_replicas"),
    ("--steps_per_loop=0", 2, "steps_per_loop is 0"),
    ("--steps_per_loop=-5", 2, "steps_per_loop is -5"),
    ("--steps_per_loop=12345678901234567890", 2, "of 32 bits"),
    ("--save_steps=0", 2, "save_steps is 0"),
    ("--save_steps=-1", 2, "save_steps is -1"),
    ("--save_seconds=-1", 2, "save_seconds is -1.0"),
    ("--save_seconds=nan", 2, "a number of at least 0, or none"),
    ("--worker_timeout=1e30", 2, "at most"),
    ("--keep=0", 2, "keep is 0"),
    ("--validation_examples=-1", 2, "validation_examples is -1"),
    ("--validation_examples=60000", 2, "60000"),
    ("--num_classes=7", 2, "mnist has 10"),
    ("--num_classes=-1", 2, "num_classes is -1"),
    ("--channels=3", 2, "mnist has 1"),
    ("--background_save=perhaps", 2, "true or false"),
    ("--resume=perhaps", 2, "resume"),
    ("--noresume=false", 2, "does not take an argument"),
    ("--epoch=3", 2, "did you mean --epochs?"),
    ("--learning-rate=3", 2, "did you mean --learning_rate?"),
    ("--turbo", 2, "see --help"),
    ("--flagfile=/nowhere", 2, "/nowhere"),
    ("--flagfile=/bin/ls", 2, "not a text file"),
    ("--verbosity=loud", 2, "verbosity"),
    # What absl and TensorFlow define and a program has no use for.
    ("--stderrthreshold=bogus", 2, "there is no flag"),
    ("--logger_levels=a:b", 2, "there is no flag"),
    ("--pdb", 2, "there is no flag"),
    ("--run_with_profiling", 2, "there is no flag"),
    ("--log_dir=/tmp", 2, "there is no flag"),
    ("3", 2, "is not a flag"),
    ("--recipe=slow", 2, "choose one of reference, fast"),
    ("--recipe=fast --config={tmp}/x", 2, "leave one out"),
    ("--config=/nowhere", 2, "/nowhere"),
    ("--config=/", 2, "Is a directory"),
    (f"--config={GOLDEN / 'config.json'} --momentum=0.5", 2, "adam does not use it"),
    ("--workdir=", 2, "a path on this machine"),
    ("--workdir=gs://bucket/run", 2, "a path on this machine"),
    ("--workdir=~nosuch/run", 2, "a user that exists"),
    (f"--workdir=/tmp/{'x' * 300}", 2, "names of less than 256"),
    (f"--workdir=/tmp{'/x' * 2500}", 2, "less than 4,096 bytes"),
    ("--workdir=/dev/null", 1, "choose another"),
    ("--workdir=/dev/null/run", 1, "choose another"),
    ("--workdir=/proc/run", 1, "/proc/run"),
    ("--data_dir=/dev/null", 2, "must be a directory"),
    ("--data_dir=gs://bucket/data", 2, "a path on this machine"),
    ("--data_dir=~nosuch/data", 2, "a user that exists"),
    (f"--data_dir=/tmp/{'x' * 300}", 2, "names of less than 256"),
    (f"--data_dir=/tmp{'/x' * 2500}", 2, "less than 4,096 bytes"),
    (f"--idx_dir=/tmp/{'x' * 300}", 2, "names of less than 256"),
    ("--idx_dir=/nowhere --data_dir={tmp}/data", 2, "/nowhere"),
    ("--idx_dir=/dev/null --data_dir={tmp}/data", 2, "folder with four IDX files"),
    ("--idx_dir={tmp} --data_dir={tmp}/data", 2, "it has no train-images"),
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
        ("evaluate.py", f"--workdir=/tmp/{'x' * 300}", 2, "names of less than 256"),
        ("evaluate.py", "--workdir=gs://bucket/run", 2, "a path on this machine"),
        ("evaluate.py", "--checkpoint=worst", 2, "latest|best"),
        ("evaluate.py", "--batch=3", 2, "batch"),
        ("evaluate.py", "--epochs=3", 2, "there is no flag --epochs"),
        ("prepare_data.py", "--dataset=mnits", 2, "mnist"),
        ("prepare_data.py", "--data_dir=/dev/null", 2, "directory"),
        ("prepare_data.py", "--data_dir={tmp}/d --idx_dir=/nowhere", 2, "/nowhere"),
        ("prepare_data.py", "mnist", 2, "is not a flag"),
        ("soak.py", "--kills=-1", 2, "kills=-1"),
        ("soak.py", "--seconds=nan", 2, "seconds"),
        ("memory.py", "--epochs=2", 2, "epochs=2"),
        ("seeds.py", "--seeds=0", 2, "seeds=0"),
        ("benchmark.py", "--batch_sizes=x", 2, "batch_sizes"),
        ("benchmark.py", "--batch_sizes=64,0", 2, "batch_sizes"),
        ("benchmark.py", "--batch_sizes=", 2, "batch_sizes"),
        ("benchmark.py", "--output={tmp}", 2, "folder"),
        ("benchmark.py", "--output=/dev/null/x", 2, "output"),
    ],
)
def test_the_other_programs_do_likewise(
    program: str, flags: str, status: int, message: str, tmp_path: pathlib.Path
) -> None:
    folder = SCRIPTS if (SCRIPTS / program).exists() else BENCHMARKS
    given = flags.replace("{tmp}", str(tmp_path)).split(" ")
    finished = run(str(folder / program), *given)
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
    ("write", "status", "message"),
    [
        (idx_of(lambda data: data[:-1]), 1, "train-images-idx3-ubyte"),
        (idx_of(lambda data: b""), 1, "train-images-idx3-ubyte"),
        (idx_of(lambda data: b"\0\0\x0d" + data[3:]), 1, "train-images-idx3-ubyte"),
        (idx_of(lambda data: data[:4] + b"\xff" * 12 + data[16:]), 1, "train-images"),
        (idx_of(lambda data: b"<!DOCTYPE html>" + data), 1, "train-images-idx3-ubyte"),
        (lambda folder: folder.mkdir(), 2, "it has no train-images"),
    ],
    ids=["cut", "empty", "type", "huge", "page", "none"],
)
def test_a_bad_data_file_is_one_line_and_prepares_nothing(
    write: Callable[[pathlib.Path], None],
    status: int,
    message: str,
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path / "idx")
    flags = [f"--data_dir={tmp_path / 'data'}", f"--idx_dir={tmp_path / 'idx'}"]
    finished = run("prepare_data.py", *flags)
    assert message in only_error(finished.stderr)
    assert finished.status == status
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
        (config(epochs="many"), None, "epochs is 'many': it must be a whole number"),
        (config(batch_size=32), "batch_size (there 32", None),
        (config(learning_rate=float("nan")), "learning_rate", "learning_rate is nan"),
        (config(learning_rate=-1), "learning_rate (there -1", "learning_rate is -1"),
        (config(turbo=True), "turbo (there True", "there is no setting turbo"),
        (config(dataset="mnits"), "dataset (there 'mnits'", "mnist"),
        (config(data_dir="/dev/null"), None, "must be a directory"),
        (text("config.json", ""), "config.json cannot be read", "cannot be read"),
        (text("config.json", "[]"), "a JSON object", "a JSON object"),
        (text("config.json", b"\xff\xfe\0"), "cannot be read", "cannot be read"),
        (text("config.json", "{" * 3), "cannot be read as JSON", "cannot be read"),
        (text("config.json", "[" * 10**5), "cannot be read as JSON", "cannot be read"),
        (directory("config.json"), "cannot be read as JSON", "cannot be read"),
        (directory(".lock"), ".lock", None),
        (directory("history.csv"), "history.csv cannot be written", None),
        (directory("result.json"), "result.json cannot be written", None),
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
    # With other settings a complete run is not just read.
    more = ["--keep=4"]
    for message, command in (
        (train, ["train.py", *small_mnist, *more]),
        (evaluate, ["evaluate.py"]),
    ):
        if message is None:
            continue
        finished = run(*command, f"--workdir={workdir}")
        assert finished.status == 1, finished.stderr
        assert message in only_error("\n".join(finished.complaints))
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
        (lambda: lenet_tf.Batches(3, 8), "dict of arrays"),
        (lambda: lenet_tf.Batches([1, 2], 8), "it must be a dict or a tuple"),
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
        (lambda: lenet_tf.Config(momentum=float("nan")), "of at least 0 and below 1"),
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
    with pytest.raises(lenet_tf.UsageError, match=rf"a label is {label}: .*\[0, 10\)"):
        fit(data)
