"""The comparison with peers: its reference, its counting, and the two programs here."""

from __future__ import annotations

import importlib
import pathlib
import shutil

import numpy as np
import pytest
from peers.table import code_lines, history_faults, markdown, number
from programs import BENCHMARKS, Program, run

PEERS = BENCHMARKS / "peers"
SIZES = ["--examples=7", "--held_out=5", "--batch_size=4", "--epochs=2"]


def test_lines_of_code_are_those_that_are_neither_blank_nor_comment() -> None:
    source = '''"""Says what it is.

    on several lines
"""

# why
import os  # counts


class Thing:
    """A docstring."""

    text = """a string
    is code"""

    def method(self):
        """Another docstring."""
        return os.path.join(
            "a",

            "b",
        )
'''
    assert code_lines(source) == 9


def test_a_history_tells_what_was_lost_doubled_and_changed() -> None:
    expected = [{"epoch": i, "loss": 1.0 / i} for i in (1, 2, 3)]
    assert history_faults(expected, expected) == "none"
    assert history_faults(expected[1:], expected) == "1 lost"
    assert history_faults([*expected, expected[0]], expected) == "1 doubled"
    changed = [expected[0], {"epoch": 2, "loss": 0.6}, expected[2]]
    assert history_faults([*changed[1:], changed[1]], expected) == (
        "1 lost, 1 doubled, 2 changed"
    )
    rounded = [{"epoch": row["epoch"], "loss": row["loss"] + 1e-7} for row in expected]
    assert history_faults(rounded, expected) == "none"


def test_a_program_that_is_not_installed_has_an_empty_column() -> None:
    table = markdown({"A": {"lines": 3, "only of A": number(0.0)}, "B": {}})
    assert table.splitlines() == [
        "|  | A | B (not installed) |",
        "| --- | --- | --- |",
        "| lines | 3 |  |",
        "| only of A | 0 |  |",
    ]
    assert number(0.000123) == "1.2e-04"


def test_the_comparison_goes_on_without_a_peer() -> None:
    python = shutil.which("false")
    finished = run(
        str(PEERS / "__main__.py"), "--only=lightning_fit", f"--torch_python={python}"
    )
    assert finished.status == 0, finished.stderr
    assert "| Lightning (not installed) |" in finished.stdout


def test_both_programs_come_to_what_numpy_computes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PEERS))
    exact, problem = map(importlib.import_module, ("exact", "problem"))
    started = {}
    for name, replicas in (("ours", 2), ("keras_loop", 1)):
        directory = tmp_path / name
        directory.mkdir()
        flags = [f"--directory={directory}", f"--replicas={replicas}", *SIZES]
        started[directory] = Program(str(PEERS / f"{name}.py"), *flags)
    options = problem.parse(["--directory=.", *SIZES])
    train, held_out = problem.examples(options)
    expected = exact.train(train, problem.initial_weights(), epochs=2, batch_size=4)
    for directory, program in started.items():
        finished = program.wait()
        assert finished.status == 0, finished.stderr
        with np.load(directory / "weights.npz") as weights:
            assert sorted(weights) == sorted(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(weights[name], value, atol=1e-5)
        found = problem.json.loads((directory / "found.json").read_text())
        assert found["evaluated"]["examples"] == 5
        assert found["evaluated"]["loss"] == pytest.approx(
            exact.loss(expected, held_out), abs=1e-5
        )
        assert [row["epoch"] for row in found["rows"]] == [1, 2]


def test_the_reference_has_the_gradient_of_its_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PEERS))
    exact, problem = map(importlib.import_module, ("exact", "problem"))
    train, _ = problem.examples(problem.parse(["--directory=.", *SIZES]))
    start = {k: v.astype(np.float64) for k, v in problem.initial_weights().items()}
    gradient, mean, variance = exact._gradient(start, train["x"], train["y"])
    # With the batch's own moments as moving averages, `loss` is that of the batch.
    for name in ("gamma", "w2", "b2"):
        step = np.zeros_like(start[name])
        step.flat[0] = 1e-6
        lower, upper = (
            exact.loss(
                {**start, "mean": mean, "variance": variance, name: start[name] + s},
                train,
            )
            for s in (-step, step)
        )
        assert gradient[name].flat[0] == pytest.approx((upper - lower) / 2e-6, rel=1e-5)
