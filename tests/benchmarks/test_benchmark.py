"""The benchmark: what it says of the machine, and what it writes."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import machine
import pytest
from programs import BENCHMARKS, run


def test_it_measures_and_writes_what_it_measured(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "deep" / "benchmark.json"
    flags = ["--mode=startup", "--repeats=1", f"--output={output}"]
    finished = run(str(BENCHMARKS / "benchmark.py"), *flags)
    assert finished.status == 0, finished.stderr
    results = json.loads(output.read_text())
    assert list(results) == ["machine", "startup"]
    (seconds,) = results["startup"]["runs"]
    assert 0 < seconds["imported"] < seconds["read"] < seconds["stepped"]
    assert results["machine"]["cores"] == machine.cores()
    assert f"written to {output}" in finished.stdout


def test_a_folder_as_output_is_refused_before_anything_is_measured(
    tmp_path: pathlib.Path,
) -> None:
    finished = run(str(BENCHMARKS / "benchmark.py"), f"--output={tmp_path}")
    assert finished.status == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line == f"error: output is {tmp_path}: it is a folder, name a file in it"


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_ps_and_proc_tell_the_same_memory() -> None:
    by_ps = machine.resident_by_ps(os.getpid())
    assert by_ps == pytest.approx(machine.resident_mebibytes(os.getpid()), rel=0.1)
    assert by_ps > 10


def test_the_cpu_has_a_name_and_cores() -> None:
    assert machine.cores() >= 1
    assert machine.cpu()
