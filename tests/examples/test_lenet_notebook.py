"""The notebook runs in a real kernel on little data; its file shows a run on MNIST."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat import NotebookNode
from programs import ROOT

NOTEBOOK = ROOT / "examples" / "lenet.ipynb"


@pytest.fixture(scope="module")
def ran(
    few_digits: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> NotebookNode:
    """The notebook after a run on 500 digits, in a folder of its own."""
    copy = tmp_path_factory.mktemp("notebook") / "lenet.ipynb"
    shutil.copy(NOTEBOOK, copy)
    # Within pytest a kernel does not show what C++ writes to stderr.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    program = [sys.executable, str(ROOT / "scripts" / "run_notebook.py"), str(copy)]
    finished = subprocess.run(
        program,
        env={**environment, "TFDS_DATA_DIR": str(few_digits)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return nbformat.read(copy, as_version=4)


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(params=["ran", "committed"])
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return request.getfixturevalue(request.param)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: NotebookNode, cell: str) -> str:
    """What a cell wrote to stdout."""
    (found,) = (c for c in notebook.cells if c.id == cell)
    return "".join(o.text for o in found.outputs if o.get("name") == "stdout")


def test_all_cells_ran_in_order(notebook: NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == [*range(1, len(counts) + 1)]


def test_the_outputs_are_text_and_pictures_without_warnings(
    notebook: NotebookNode,
) -> None:
    shown: dict[str, list[str]] = {}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            kinds = output.get("data", {output.get("name"): ""})
            shown.setdefault(cell.id, []).extend(sorted(kinds))
    picture = ["image/png", "text/plain"]
    assert {k: v for k, v in shown.items() if v[0] != "stdout"} == {
        "data": picture,
        "curves": picture,
    }
    others = {k: {*v} for k, v in shown.items() if v[0] == "stdout"}
    assert others.pop("test") == {"stdout", *picture}
    assert others == {k: {"stdout"} for k in ("model", "training", "loss", "saving")}


def test_it_trains_and_tests_with_both_losses(notebook: NotebookNode) -> None:
    assert "Total params: 61,706" in printed(notebook, "model")
    for cell in ("training", "loss"):
        text = printed(notebook, cell)
        assert re.findall(r"^epoch (\d)/2  loss ", text, re.MULTILINE) == ["1", "2"]
    (alone,) = re.findall(r"test accuracy (.+)%", printed(notebook, "test"))
    both = re.findall(r"test accuracy (.+)%", printed(notebook, "loss"))
    assert len(both) == 2
    assert both[0] == alone
    assert all(10 < float(accuracy) < 100 for accuracy in both)


def test_the_run_that_was_given_up_goes_on_to_the_same_bits(
    notebook: NotebookNode,
) -> None:
    text = printed(notebook, "saving")
    assert re.findall(r"^epoch (\S+)", text, re.MULTILINE) == ["1/1", "2/2"]
    assert text.endswith("the same bits: True\n")


def test_the_committed_outputs_are_those_of_mnist(committed: NotebookNode) -> None:
    (accuracy,) = re.findall(r"test accuracy (.+)%", printed(committed, "test"))
    assert 97 < float(accuracy) < 99.9


def test_the_file_names_no_place_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK.read_text()
    assert not re.search(r"(?<![\w.])/(home|root|tmp|usr|work|Users)/", text)


def test_the_pages_that_it_links_to_are_there(committed: NotebookNode) -> None:
    text = "".join(c.source for c in committed.cells if c.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 4
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []
