"""Many trainers in one process, one after the other, leave nothing behind."""

import pathlib
import statistics

import pytest
from programs import run

PROGRAM = str(pathlib.Path(__file__).parent / "many_trainers.py")


@pytest.mark.parametrize("kind", ["arrays", "rows"])
def test_a_trainer_that_is_gone_leaves_less_than_2_mebibytes(
    kind: str, tmp_path: pathlib.Path
) -> None:
    finished = run(PROGRAM, kind, str(tmp_path))
    assert finished.status == 0, finished.stderr
    growth = [float(line) for line in finished.stdout.split()]
    assert len(growth) == 8
    # The first ones fill TensorFlow's caches and thread pools.
    assert statistics.mean(growth[3:]) < 2
    assert "retracing" not in finished.stderr
