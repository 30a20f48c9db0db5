"""Reports and predictions of a real run, by the programs that a user calls."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from programs import run

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.experiment import load_network
from lenet_tf.experiment.comparisons import compare
from lenet_tf.experiment.reports import write_own_report, write_report
from lenet_tf.report import regression_sections

MAIN = str(pathlib.Path(lenet_tf.__file__).parent / "__main__.py")


@pytest.fixture(scope="module")
def trained(
    few_digits: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A run of LeNet-5 on 2,000 digits."""
    workdir = tmp_path_factory.mktemp("runs") / "one"
    finished = run(
        MAIN,
        *("train", f"--workdir={workdir}", f"--data_dir={few_digits}"),
        *("--recipe=sprint", "--epochs=4", "--validation_examples=500"),
        "--num_replicas=1",
    )
    assert finished.status == 0, finished.stderr
    assert f"see {workdir / 'report.html'}" in finished.stdout
    return workdir


def test_a_run_ends_with_a_report_of_its_test_split(trained: pathlib.Path) -> None:
    text = (trained / "report.html").read_text()
    result = json.loads((trained / "result.json").read_text())
    assert f"{result['test_accuracy']:.2%}" in text
    network = load_network(trained, "latest")
    answers = network.probabilities(network.splits.test.image).argmax(axis=1)
    wrong = int((answers != network.splits.test.label).sum())
    assert f"{wrong} of 300 examples are mistaken" in text
    for part in ("Learning rate", "Confusion matrix", "Calibration", "Kernels of C1"):
        assert part in text
    assert "learning_rate" in text
    assert len(text) < 600_000


def test_the_report_can_be_written_again_and_elsewhere(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    page = tmp_path / "inner" / "page.html"
    assert write_report(trained, "latest", page) == page
    assert page.read_text() == (trained / "report.html").read_text()
    with pytest.raises(UsageError, match="holds no run"):
        write_report(tmp_path)


def test_a_complete_run_gets_a_report_that_it_lacks(
    trained: pathlib.Path, few_digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Such as one that was killed while it wrote the report."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    page = workdir / "report.html"
    page.unlink()
    flags = [f"--workdir={workdir}", f"--config={workdir / 'config.json'}"]
    finished = run(MAIN, "train", *flags, "--noreport")
    assert "is complete" in finished.stderr
    assert not page.exists()
    finished = run(MAIN, "train", *flags)
    assert "is complete" in finished.stderr
    assert page.exists()


def test_the_report_of_a_run_that_goes_on_says_so(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    running = shutil.copytree(trained, tmp_path / "run")
    (running / "result.json").unlink()
    config = json.loads((running / "config.json").read_text())
    (running / "config.json").write_text(json.dumps({**config, "epochs": 9}))
    text = write_report(running).read_text()
    steps = 4 * -(-2000 // config["batch_size"])
    assert f"<dd>step {steps} of {steps * 9 // 4}</dd>" in text
    assert "not complete" not in (trained / "report.html").read_text()


def test_runs_are_compared(
    trained: pathlib.Path, few_digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other, page = tmp_path / "other", tmp_path / "compared.html"
    flags = [f"--data_dir={few_digits}", "--recipe=sprint", "--num_replicas=1"]
    flags += ["--epochs=1", "--noreport", "--batch_size=100"]
    finished = run(MAIN, "train", f"--workdir={other}", *flags)
    assert finished.status == 0, finished.stderr
    assert not (other / "report.html").exists()
    finished = run(
        MAIN, "report", "--workdir", str(trained), str(other), f"--output={page}"
    )
    assert finished.status == 0, finished.stderr
    text = page.read_text()
    for value in ("/one<", "/other<", "batch_size", "test accuracy"):
        assert value in text
    assert "dataset" not in text  # which is the same
    page.unlink()
    finished = run(MAIN, "report", str(trained), str(other), f"--output={page}")
    assert page.read_text() == text
    with pytest.raises(UsageError, match="holds no run"):
        compare([trained, tmp_path / "none"], page)


def test_another_model_s_run_has_a_report_with_its_own_sections(
    tmp_path: pathlib.Path,
) -> None:
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    data = {"x": x, "y": 3 * x[:, 0]}
    model = lenet_tf.nn.Dense(1, 1, (0, 0))

    def forward(model: lenet_tf.nn.Dense, batch: dict, training: bool) -> dict:
        return {"loss": (model(batch["x"])[:, 0] - batch["y"]) ** 2}

    trainer = lenet_tf.Trainer(model, lenet_tf.Adam(0.1), forward)
    batches = lenet_tf.Batches(data, 10)
    with lenet_tf.Workdir(tmp_path / "line", {"rate": 0.1}) as held:
        held.fit(trainer, batches, epochs=2, validation=batches, progress=False)
        predictions = trainer.predict(batches, lambda m, b: m(b["x"])[:, 0])
        sections = regression_sections(predictions, data["y"])
        held.write_result({"test_loss": 0.25, "parts": [1, 2]}, sections)
    text = (tmp_path / "line" / "report.html").read_text()
    for part in ("test loss", "0.25", "Largest errors", "rate", "tensorflow"):
        assert part in text
    with pytest.raises(UsageError, match=r"written by Workdir\.write_result"):
        write_report(tmp_path / "line")
    (tmp_path / "line" / "report.html").unlink()
    write_own_report(tmp_path / "line", sections)
    assert (tmp_path / "line" / "report.html").read_text() == text
    for program in (["predict", "x.png"], ["export"], ["demo"]):
        finished = run(MAIN, *program, f"--workdir={tmp_path / 'line'}")
        assert finished.status == 1
        assert "holds a run of another model" in finished.stderr


def test_predict_tells_the_digits_in_files_and_folders(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    network = load_network(trained, "best")
    test = network.splits.test
    for i in range(20):
        large = Image.fromarray(255 - test.image[i, ..., 0]).resize((140, 140))
        large.save(tmp_path / f"{i:02}.png")
    (tmp_path / "20.png").write_text("no picture")
    finished = run(MAIN, "predict", str(tmp_path), "none.png", f"--workdir={trained}")
    assert finished.status == 1
    assert finished.stderr.splitlines() == [
        f"error: {tmp_path / '20.png'} is not a picture: give PNG, JPEG, WebP, GIF or "
        "the like",
        "error: none.png cannot be read: No such file or directory",
    ]
    lines = finished.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        str(tmp_path / f"{i:02}.png") for i in range(20)
    ]
    answers = network.probabilities(test.image[:20]).argmax(axis=1)
    told = [int(line.split(": ")[1][0]) for line in lines]
    assert sum(a == b for a, b in zip(told, answers, strict=True)) >= 18


def test_predict_prints_json_of_several_digits(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    test = load_network(trained).splits.test
    row = np.concatenate([test.image[i, ..., 0] for i in range(3)], axis=1)
    Image.fromarray(row).resize((840, 280)).save(tmp_path / "row.png")
    flags = [str(tmp_path / "row.png"), f"--workdir={trained}"]
    finished = run(MAIN, "predict", *flags, "--several", "--json")
    assert finished.status == 0, finished.stderr
    (line,) = map(json.loads, finished.stdout.splitlines())
    assert len(line["found"]) == 3
    for i, one in enumerate(line["found"]):
        assert 0 <= one["runner_up_probability"] <= one["probability"] <= 1
        assert i / 3 <= one["box"][0] < one["box"][2] <= (i + 1) / 3
    finished = run(MAIN, "predict", *flags)
    assert "3 things side by side" in finished.stderr


def test_predict_says_what_is_missing(trained: pathlib.Path) -> None:
    finished = run(MAIN, "predict", f"--workdir={trained}")
    assert finished.status == 2
    assert finished.stderr.startswith("error: no picture is given")
    finished = run(MAIN, "predict", "x.png", f"--workdir={trained}", "--seveal")
    assert finished.stderr.strip() == (
        "error: there is no flag --seveal: did you mean --several?"
    )


def test_a_network_refuses_images_of_another_shape(trained: pathlib.Path) -> None:
    network = load_network(trained)
    assert network.probabilities(np.zeros([0, 28, 28, 1], np.uint8)).shape == (0, 10)
    for images in (np.zeros([2, 28, 28], np.uint8), np.zeros([2, 28, 28, 1])):
        with pytest.raises(UsageError, match=r"they must be uint8 \[N, 28, 28, 1\]"):
            network.probabilities(images)
    maps = network.maps(network.splits.test.image[0])
    assert {name: m.shape for name, m in maps.items()} == {
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
    }
