"""A run of a former version goes on, and comes to what it came to then.

`golden/run` was stopped by a signal at step 13 of 21, in mid-epoch: Adam, 2 replicas,
batches of 5 of 32 random digits. `expected_history.csv` and `expected_result.json` are
what an undisturbed run of that version came to.
"""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import pytest
from idx_writer import write_idx_dir

import lenet_tf
from lenet_tf.files import read_json, write_json

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset that the run was trained on."""
    root = tmp_path_factory.mktemp("golden")
    write_idx_dir(root / "idx", train=40, test=12)
    lenet_tf.prepare("mnist", data_dir=root / "data", idx_dir=root / "idx")
    return str(root / "data")


@pytest.fixture
def workdir(tmp_path: pathlib.Path, data_dir: str) -> pathlib.Path:
    """A copy of the run; its data lies elsewhere now."""
    copy = pathlib.Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", {**config, "data_dir": data_dir})
    return copy


def resume(workdir: pathlib.Path, data_dir: str) -> dict[str, object]:
    """Goes on with the run by the settings it was started with."""
    config = lenet_tf.Config(
        data_dir=data_dir,
        validation_examples=8,
        batch_size=5,
        epochs=3,
        num_replicas="2",
        steps_per_loop=3,
        keep=1,
        learning_rate=0.003,
    )
    return dict(lenet_tf.run(config, workdir))


def rows(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a history."""
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_a_run_of_a_former_version_goes_on_to_the_same_end(
    workdir: pathlib.Path, data_dir: str
) -> None:
    result = resume(workdir, data_dir)
    expected = rows(GOLDEN / "expected_history.csv")
    history = rows(workdir / "history.csv")
    assert [list(row) for row in history] == [list(row) for row in expected]
    # Another machine sums in another order.
    for row, former in zip(history, expected, strict=True):
        assert row == pytest.approx(former, rel=1e-5)
    former_result = json.loads((GOLDEN / "expected_result.json").read_text())
    for key in ("test_loss", "test_accuracy", "parameters", "epochs", "replicas"):
        assert result[key] == pytest.approx(former_result[key], rel=1e-5)
    best = lenet_tf.evaluate(workdir, "best")
    assert best["test_examples"] == 12
    assert 0 <= best["test_accuracy"] <= 1


def test_the_best_of_a_former_version_is_evaluated_before_anything_else(
    workdir: pathlib.Path,
) -> None:
    best, latest = (lenet_tf.evaluate(workdir, which) for which in ("best", "latest"))
    assert best["test_examples"] == latest["test_examples"] == 12
    assert best["test_loss"] != latest["test_loss"]  # of steps 7 and 13


def test_a_run_whose_config_lacks_a_setting_goes_on_with_its_default(
    workdir: pathlib.Path, data_dir: str
) -> None:
    config = read_json(workdir / "config.json")
    del config["kernel"], config["schedule"], config["ema"]
    write_json(workdir / "config.json", config)
    assert resume(workdir, data_dir)["epochs"] == 3
    assert read_json(workdir / "config.json")["kernel"] == "5x5"
    history = rows(workdir / "history.csv")
    assert history[-1]["step"] == 21
