"""The page that compares several runs.

compare(["runs/a", "runs/b"], "compared.html")
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from lenet_tf.experiment.run_files import RunFiles, metric_text, read_run
from lenet_tf.report.history import comparison_charts
from lenet_tf.report.page import check_installed, write_page
from lenet_tf.report.parts import Part, Section, Table

_PLACES = ("data_dir", "idx_dir")  # settings that change no number


def compare(
    workdirs: Sequence[pathlib.Path | str],
    path: pathlib.Path | str,
    names: Sequence[str] | None = None,
    title: str = "",
    parts: Sequence[Part] = (),
) -> pathlib.Path:
    """Writes a page that compares runs by their curves, results and settings.

    Args:
      workdirs: Directories of the runs.
      path: HTML file to write.
      names: Name of each run; runs of the same name have the same colour. By default
        the directories, as seen from the one that they are all in.
      title: Title of the page.
      parts: What is shown first.

    Returns:
      The file.

    Raises:
      UsageError: A directory holds no run, or the file cannot be written.
    """
    check_installed()
    runs = [read_run(workdir) for workdir in workdirs]
    groups: dict[str, list[RunFiles]] = {}
    for name, run in zip(names or _names(runs), runs, strict=True):
        groups.setdefault(name, []).append(run)
    charts = comparison_charts(
        {name: [run.rows for run in group] for name, group in groups.items()}
    )
    sections = [
        *([Section("Results", parts)] if parts else []),
        Section("Curves", charts),
        Section("Runs", [_results(runs)]),
        Section("Settings that differ", [_differing(runs)]),
    ]
    return write_page(path, title or f"{len(runs)} runs compared", sections)


def _results(runs: Sequence[RunFiles]) -> Table:
    """Makes a table of the accuracies, and of other results in which runs differ."""
    columns: list[str] = []
    found = []
    for run in runs:
        last = run.rows[-1] if run.rows else {}
        values = {k: v for k, v in last.items() if k.startswith("val_")}
        values |= {
            k: v
            for k, v in run.result.items()
            if isinstance(v, int | float) and not isinstance(v, bool)
        }
        columns += [name for name in values if name not in columns]
        found.append(values)
    scores = [name for name in columns if name.endswith("accuracy")]
    differing = [c for c in columns if len({values.get(c) for values in found}) > 1]
    columns = [name for name in columns if name in {*scores, *differing}]
    rows = [
        (name, *(metric_text(column, values.get(column)) for column in columns))
        for name, values in zip(_names(runs), found, strict=True)
    ]
    return Table(["run", *(name.replace("_", " ") for name in columns)], rows)


def _differing(runs: Sequence[RunFiles]) -> Table:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differing = [
        name
        for name in names
        if any(run.settings.get(name) != runs[0].settings.get(name) for run in runs)
        if name not in _PLACES
    ]
    rows = [
        (name, *(run.settings.get(setting, "–") for setting in differing))
        for name, run in zip(_names(runs), runs, strict=True)
    ]
    return Table(["run", *differing], rows)


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """Names runs by their directories, without what all of these have in common."""
    parents = [str(run.path.absolute().parent) for run in runs]
    common = os.path.commonpath(parents)
    return [os.path.relpath(run.path.absolute(), common) for run in runs]
