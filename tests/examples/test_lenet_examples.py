"""The examples that compare a network of one's own with LeNet-5 run."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from idx_writer import write_idx_dir
from programs import ROOT, run

import lenet_tf

EXAMPLES = ROOT / "examples"


def test_two_branch_prepares_the_data_and_compares_both_networks(
    tmp_path: pathlib.Path,
) -> None:
    write_idx_dir(tmp_path / "idx", train=2100, test=12)  # 2,000 are held out
    flags = [f"--data_dir={tmp_path / 'data'}", f"--idx_dir={tmp_path / 'idx'}"]
    script = str(EXAMPLES / "two_branch.py")
    finished = run(script, *flags, f"--workdir={tmp_path / 'run'}", "--epochs=1")
    assert finished.status == 0, finished.stderr
    assert "two_branch: 235,834 parameters, " in finished.stdout
    assert "lenet: 61,706 parameters, " in finished.stdout
    assert (tmp_path / "run" / "two_branch" / "best" / "best.json").exists()


def test_distil_trains_a_student_alone_and_by_a_teacher_that_stays(
    tmp_path: pathlib.Path, few_digits: pathlib.Path
) -> None:
    data = {"TFDS_DATA_DIR": str(few_digits)}
    teacher = tmp_path / "teacher"
    flags = ["--recipe=best", f"--workdir={teacher}", "--epochs=1"]
    trained = run("train.py", *flags, environment=data)
    assert trained.status == 0, trained.stderr
    flags = [f"--teacher={teacher}", f"--workdir={tmp_path / 'run'}", "--epochs=1"]
    finished = run(str(EXAMPLES / "distil.py"), *flags, environment=data)
    assert finished.status == 0, finished.stderr
    lines = finished.stdout.splitlines()
    figures = {line.split(":")[0]: line for line in lines if "test digits" in line}
    assert list(figures) == ["teacher", "distilled", "alone"]
    result = json.loads((teacher / "result.json").read_text())
    assert f" {result['test_accuracy']:.2%} " in figures["teacher"]

    before, after = lenet_tf.LeNet5(), lenet_tf.LeNet5()
    lenet_tf.load_weights(before, teacher)
    distilled = tmp_path / "run" / "distilled_0"
    lenet_tf.load_weights(after, distilled, part="teacher", which="latest")
    for old, new in zip(before.variables, after.variables, strict=True):
        np.testing.assert_array_equal(old, new)
