"""Sections -> a page in one file, which needs no network.

write_page(path, "runs/mine", [Section("Loss", [chart])], facts={"loss": 0.21})

It needs jinja2 and matplotlib, which `pip install 'lenet_tf[report]'` brings.
"""

from __future__ import annotations

import importlib
import math
import numbers
import pathlib
from collections.abc import Mapping, Sequence

from lenet_tf.errors import UsageError
from lenet_tf.files import make_folder, os_errors_as, write_text
from lenet_tf.report.parts import Section


def write_page(
    path: pathlib.Path | str,
    title: str,
    sections: Sequence[Section],
    facts: Mapping[str, object] | None = None,
) -> pathlib.Path:
    """Writes a page, whole or not at all.

    Args:
      path: HTML file to write. Its folder is made if it is missing.
      title: Title of the page.
      sections: Its sections, in order.
      facts: Few things by name that are told first, in large type.

    Returns:
      The path.

    Raises:
      UsageError: jinja2 is not installed, or the file cannot be written.
    """
    check_installed()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lenet_tf.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shown"] = shown
    text = environment.get_template("page.html").render(
        title=title, sections=sections, facts=facts or {}
    )
    path = pathlib.Path(path)
    with os_errors_as(UsageError, f"{path} cannot be written"):
        make_folder(path.parent)
    write_text(path, text)
    return path


def check_installed() -> None:
    """Raises UsageError if a package is missing that pages are made with."""
    for package in ("jinja2", "matplotlib", "PIL"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{package} is not installed: run pip install 'lenet_tf[report]'"
            ) from error


def shown(value: object) -> str:
    """Returns a value as text: numbers with thousands, or four digits."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else str(value)
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    return str(value)
