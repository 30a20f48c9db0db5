"""Sweeps over settings and seeds: complete, killed, refused."""

from __future__ import annotations

import csv
import json
import pathlib
import signal
import statistics

import pytest
from idx_writer import write_idx_dir
from programs import Finished, Program

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.experiment import grid

MAIN = str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py")
GRID = "--grid=activation=tanh,relu;learning_rate=1e-3,1e30"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags for the few images of an IDX folder."""
    root = tmp_path_factory.mktemp("data")
    write_idx_dir(root / "idx")
    lenet_tf.prepare("mnist", data_dir=root / "data", idx_dir=root / "idx")
    return [
        f"--data_dir={root / 'data'}",
        *("--validation_examples=4", "--batch_size=4", "--num_replicas=1"),
        *("--epochs=2", "--seeds=2"),
    ]


def start(workdir: pathlib.Path, *flags: str) -> Program:
    return Program(MAIN, "sweep", f"--workdir={workdir}", *flags)


def finish(workdir: pathlib.Path, *flags: str) -> Finished:
    finished = start(workdir, *flags).wait()
    assert finished.status == 0, finished.stderr
    return finished


def test_a_killed_sweep_goes_on_and_repeats_no_run(
    flags: list[str], tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "sweep"
    killed = start(workdir, GRID, *flags)
    first = workdir / "activation=tanh,learning_rate=0.001,seed=0" / "result.json"
    killed.until(first.exists)
    killed.send(signal.SIGKILL)
    killed.wait()
    assert not (workdir / "sweep.csv").exists()
    before = first.stat().st_mtime_ns
    said = finish(workdir, GRID, *flags).stdout
    assert first.stat().st_mtime_ns == before

    rows = list(csv.DictReader((workdir / "sweep.csv").open()))
    assert [(r["activation"], r["learning_rate"], r["runs"]) for r in rows] == [
        ("tanh", "0.001", "2"),
        ("tanh", "1e+30", "2"),  # its units are saturated
        ("relu", "0.001", "2"),
        ("relu", "1e+30", "0"),  # no loss was finite
    ]
    scores = [
        json.loads((first.parent.parent / name / "result.json").read_text())
        for name in (first.parent.name, first.parent.name.replace("d=0", "d=1"))
    ]
    test = [score["test_accuracy"] for score in scores]
    assert float(rows[0]["test_accuracy"]) == statistics.fmean(test)
    assert float(rows[0]["test_accuracy_sd"]) == statistics.stdev(test)
    assert len(said.splitlines()) == 5
    assert said.splitlines()[-1] == f"see {workdir / 'report.html'}"
    page = (workdir / "report.html").read_text()
    assert "activation=tanh, learning_rate=0.001" in page
    assert page.count("seed=1") >= 4
    assert said.startswith("activation=tanh learning_rate=0.001  2 runs  val_accuracy")
    assert finish(workdir, GRID, *flags).stdout == said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("activatio=tanh", "grid has 'activatio', .* is it activation?"),
        ("activation", "grid has 'activation': give values, as in activation=1,2"),
        ("seed=1,2", "grid has 'seed', .* give the number of --seeds"),
        ("epochs=1;epochs=2", "grid has 'epochs' twice"),
        ("batch_size=0", "batch_size is 0: it must be"),
        ("", "grid is empty: give settings"),
    ],
)
def test_a_wrong_grid_is_one_line(text: str, line: str) -> None:
    with pytest.raises(UsageError, match=line) as error:
        grid(text)
    assert "\n" not in str(error.value)


def test_a_grid_has_all_combinations_in_order() -> None:
    assert grid("epochs=1,2; clip_norm=none,0.5") == [
        {"epochs": 1, "clip_norm": None},
        {"epochs": 1, "clip_norm": 0.5},
        {"epochs": 2, "clip_norm": None},
        {"epochs": 2, "clip_norm": 0.5},
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--grid=epochs=1,2"], "error: epochs is in the grid too: leave one out"),
        (["--grid=momentum=0.5"], "error: momentum"),  # without effect for Adam
        (["--grid=activation=tanh", "--seed=3"], "error: seed is given: a sweep takes"),
    ],
    ids=["twice", "no effect", "seed"],
)
def test_what_is_wrong_stops_before_the_first_run(
    given: list[str], line: str, flags: list[str], tmp_path: pathlib.Path
) -> None:
    finished = start(tmp_path / "sweep", *given, *flags).wait()
    assert finished.status in (1, 2)
    assert line in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "sweep").exists()
