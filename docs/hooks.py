"""What mkdocs fills in while it builds: settings, and the names to be documented."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = "<!-- settings -->"
TOP = "<!-- names at the top -->"
NAMES = re.compile(r"<!-- names of (?P<package>[\w.]+) -->")
# In a process of its own, for TensorFlow writes notices as it starts.
_PROGRAM = """
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.settings import markdown_table
print(markdown_table(Config))
"""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the marks of a page."""
    if SETTINGS in markdown:
        markdown = markdown.replace(SETTINGS, settings())
    if TOP in markdown:
        markdown = markdown.replace(TOP, names_at_the_top())
    return NAMES.sub(lambda match: names(match["package"]), markdown)


def settings() -> str:
    """Returns the tables of all settings, in Markdown."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"the settings cannot be listed: {done.stderr}")
    return done.stdout


def names(package: str) -> str:
    """Returns a directive of mkdocstrings for each name that a package exports."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    # Those that begin with a capital first.
    exported = sorted(exports(path), key=lambda name: (name[0].islower(), name.lower()))
    return "\n\n".join(f"::: {package}.{name}" for name in exported)


def names_at_the_top() -> str:
    """Returns a list of the names at the top, by package, each with a link."""
    packages: dict[str, list[str]] = {}
    for name, package in exports(ROOT / "lenet_tf" / "__init__.pyi").items():
        if not package:
            continue
        module = f"lenet_tf.{package}"
        page = f"{package}.md" if ROOT.joinpath("lenet_tf", package).is_dir() else ""
        link = f"[`{name}`]({page}#{module}.{name})"
        packages.setdefault(module, []).append(link)
    return "\n".join(f"- `{m}`: {', '.join(found)}" for m, found in packages.items())


def exports(path: pathlib.Path) -> dict[str, str]:
    """Returns the names that a package's file exports -> the module they are from."""
    return {
        alias.name: node.module or ""
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
