"""A whole run in a workdir: complete, older, unreadable, or of another's settings."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from idx_writer import write_idx_dir
from programs import run

import lenet_tf


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of train.py for the few images of an IDX folder."""
    root = tmp_path_factory.mktemp("data")
    write_idx_dir(root / "idx")
    lenet_tf.prepare("mnist", data_dir=root / "data", idx_dir=root / "idx")
    return [
        f"--data_dir={root / 'data'}",
        "--validation_examples=4",
        "--batch_size=4",
        "--num_replicas=1",
        "--epochs=2",
    ]


@pytest.fixture(scope="module")
def complete(
    tmp_path_factory: pytest.TempPathFactory, flags: list[str]
) -> pathlib.Path:
    """The workdir of a run that is complete."""
    workdir = tmp_path_factory.mktemp("complete") / "run"
    finished = run("train.py", *flags, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    return workdir


@pytest.fixture
def workdir(complete: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it."""
    return pathlib.Path(shutil.copytree(complete, tmp_path / "run"))


def test_a_complete_run_is_only_read(workdir: pathlib.Path, flags: list[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    written = json.loads((workdir / "result.json").read_text())
    # Nothing is evaluated again, so the figures can be told from new ones.
    altered = {**written, "test_accuracy": 0.123}
    (workdir / "result.json").write_text(json.dumps(altered))
    before[workdir / "result.json"] = (workdir / "result.json").stat().st_mtime_ns
    finished = run("train.py", *flags, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    assert "test accuracy 12.30%" in finished.stdout
    (line,) = finished.stderr.splitlines()
    assert line.endswith(f"{workdir} is complete: this is its result")
    assert before == {
        p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()
    }


def test_noresume_does_not_take_a_complete_run_either(
    workdir: pathlib.Path, flags: list[str]
) -> None:
    finished = run("train.py", *flags, f"--workdir={workdir}", "--noresume")
    assert finished.status == 1
    assert "holds a run already" in finished.stderr


def result_without(key: str) -> Callable[[pathlib.Path], None]:
    def change(workdir: pathlib.Path) -> None:
        path = workdir / "result.json"
        result = json.loads(path.read_text())
        del result[key]
        path.write_text(json.dumps(result))

    return change


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (result_without("fingerprint"), []),  # by an older version
        (lambda workdir: (workdir / "result.json").unlink(), []),
        (lambda workdir: (workdir / "result.json").write_text("{"), []),
        (lambda workdir: None, ["--eval_batch_size=3"]),
        (lambda workdir: None, ["--epochs=3"]),
    ],
    ids=["older", "missing", "cut", "setting", "longer"],
)
def test_a_result_that_does_not_belong_to_the_run_is_made_again(
    workdir: pathlib.Path,
    flags: list[str],
    change: Callable[[pathlib.Path], None],
    more: list[str],
) -> None:
    fingerprint = json.loads((workdir / "result.json").read_text())["fingerprint"]
    change(workdir)
    finished = run("train.py", *flags, *more, f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    assert "is complete" not in finished.stderr
    after = json.loads((workdir / "result.json").read_text())["fingerprint"]
    assert (after == fingerprint) == (not more)
    again = run("train.py", *flags, *more, f"--workdir={workdir}")
    assert "is complete" in again.stderr


def test_a_result_of_other_weights_is_made_again(
    complete: pathlib.Path, workdir: pathlib.Path, flags: list[str]
) -> None:
    finished = run("train.py", *flags, "--epochs=3", f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    shutil.copy(complete / "result.json", workdir / "result.json")
    shutil.copy(complete / "config.json", workdir / "config.json")
    finished = run("train.py", *flags, "--epochs=3", f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    assert "is complete" not in finished.stderr
    assert json.loads((workdir / "result.json").read_text())["epochs"] == 3


def test_a_run_starts_from_the_settings_of_another(
    workdir: pathlib.Path, flags: list[str], tmp_path: pathlib.Path
) -> None:
    config = workdir / "config.json"
    other = tmp_path / "other"
    finished = run("train.py", f"--config={config}", "--seed=5", f"--workdir={other}")
    assert finished.status == 0, finished.stderr
    before = json.loads(config.read_text())
    after = json.loads((other / "config.json").read_text())
    assert after == {**before, "seed": 5}
    # Flags of its own would be the same run.
    same = run("train.py", *flags, "--seed=5", f"--workdir={other}")
    assert "is complete" in same.stderr


def test_a_run_of_an_older_version_goes_on_and_is_evaluated(
    flags: list[str], tmp_path: pathlib.Path
) -> None:
    """Its settings lack one of today's, and have one that has no effect."""
    workdir = tmp_path / "run"
    finished = run("train.py", *flags, "--epochs=1", f"--workdir={workdir}")
    assert finished.status == 0, finished.stderr
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    del config["nesterov"]
    config |= {"weight_decay": 0.0, "num_replicas": "1"}
    path.write_text(json.dumps(config))
    evaluated = run("evaluate.py", f"--workdir={workdir}")
    assert evaluated.status == 0, evaluated.stderr
    resumed = run("train.py", *flags, f"--workdir={workdir}")
    assert resumed.status == 0, resumed.stderr
    assert "resumed from" in resumed.stderr
    assert json.loads(path.read_text())["nesterov"] is False


def test_python_can_evaluate_what_python_has_trained(
    flags: list[str], tmp_path: pathlib.Path
) -> None:
    data_dir = flags[0].partition("=")[2]
    config = lenet_tf.Config(
        data_dir=pathlib.Path(data_dir),  # type: ignore[arg-type]
        num_replicas=2,
        validation_examples=4,
        batch_size=4,
        epochs=1,
    )
    result = lenet_tf.run(config, tmp_path / "run")
    test = lenet_tf.evaluate(tmp_path / "run")
    assert result["replicas"] == 2
    assert {k: result[k] for k in test} == test


def test_a_picture_that_fails_costs_no_figures(
    flags: list[str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")  # without LaTeX
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "lenet_tf",
            "train",
            *flags,
            f"--workdir={tmp_path}/run",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path), "PATH": ""},
    )
    assert finished.returncode == 0, finished.stderr
    assert "test accuracy" in finished.stdout
    assert "Traceback" not in finished.stderr
    *_, curves, page = finished.stderr.splitlines()
    assert "the curves were not drawn: " in curves
    assert "the report was not written: " in page
    assert (tmp_path / "run" / "result.json").exists()


def test_a_run_without_matplotlib_says_how_to_get_it(
    flags: list[str], tmp_path: pathlib.Path
) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from lenet_tf.cli.train import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *flags, f"--workdir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    *_, curves, page = finished.stderr.splitlines()
    assert curves.endswith(
        "the curves were not drawn: matplotlib is not installed: run pip install "
        "'lenet_tf[plots]'"
    )
    assert page.endswith(
        "the report was not written: matplotlib is not installed: run pip install "
        "'lenet_tf[report]'"
    )


@pytest.mark.parametrize("closed", [".", "checkpoints"])
def test_what_may_not_be_read_is_one_line(
    workdir: pathlib.Path, closed: str, tmp_path: pathlib.Path
) -> None:
    """As a colleague's run may be. Root, who may read everything, becomes nobody."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)  # pytest's own are closed to others
    path = workdir / closed
    mode = path.stat().st_mode
    path.chmod(0)
    code = (
        "import os, sys\n"
        "from lenet_tf.cli import evaluate\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "evaluate.main()"
    )
    try:
        finished = subprocess.run(
            [sys.executable, "-c", code, f"--workdir={workdir}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        path.chmod(mode)
    assert finished.returncode == 1, finished.stderr
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Permission denied" in line
