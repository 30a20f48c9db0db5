"""The documentation's Python runs as it stands, on little data."""

from __future__ import annotations

import pathlib
import re

import pytest
from programs import ROOT, run

import lenet_tf
from lenet_tf.experiment.settings import settings_of

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def blocks(page: pathlib.Path, language: str) -> str:
    """Returns a page's code in a language, each line where it stands in the page."""
    lines, inside = [], False
    for line in page.read_text().splitlines():
        fence = line.startswith("```")
        inside = line == f"```{language}" if fence else inside
        lines.append(line if inside and not fence else "")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python").strip()],
    ids=lambda page: page.name,
)
def test_the_python_of_a_page_runs(
    page: pathlib.Path, few_digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code = blocks(page, "python").split("\n")
    assert code[0] == ""  # a page begins with its title
    code[0] = f"import os; os.chdir({str(tmp_path)!r})"
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(code))
    finished = run(str(script), environment={"TFDS_DATA_DIR": str(few_digits)})
    assert finished.status == 0, finished.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_flags_of_a_page_exist(page: pathlib.Path) -> None:
    commands = blocks(page, "sh")
    trained = re.findall(
        r"(?:make train|scripts/train\.py|lenet_tf train)([^\n]*)", commands
    )
    named = re.findall(r"--(?:no)?(\w+)", " ".join(trained))
    known = {*settings_of(lenet_tf.Config), "workdir", "config", "resume", "help"}
    assert set(named) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_links_to_are_there(page: pathlib.Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []
