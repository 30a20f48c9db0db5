"""The page about a run, report.html.

    write_report("runs/mnist")                    # of a run of LeNet-5
    compare(["runs/a", "runs/b"], "compared.html")

`run` writes it at the end of each run, and `Workdir.write_result` for other models.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from lenet_tf.errors import UsageError
from lenet_tf.experiment.build import build_schedule
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.network import Network, load_network
from lenet_tf.experiment.run_files import RunFiles, read_run
from lenet_tf.experiment.settings import without_effect
from lenet_tf.files import first_line
from lenet_tf.report.charts import curves
from lenet_tf.report.classification import classification_sections
from lenet_tf.report.history import comparison_charts, history_section
from lenet_tf.report.page import write_page
from lenet_tf.report.parts import Chart, Part, Section, Table, tiles

REPORT_FILE = "report.html"
_RATES = 200  # points of the learning rate's curve


def write_report(
    workdir: pathlib.Path | str,
    which: str = "latest",
    path: pathlib.Path | str | None = None,
) -> pathlib.Path:
    """Writes the page about a run of LeNet-5, with its answers to the test split.

    Args:
      workdir: Directory of the run, which may still be going on.
      which: Checkpoint whose answers are shown, "latest" or "best".
      path: HTML file to write; by default report.html of the run.

    Returns:
      The file.

    Raises:
      UsageError: The directory holds no run of LeNet-5 or no such checkpoint, or the
        file cannot be written.
    """
    run = read_run(workdir)
    config = run.config
    if config is None:
        raise UsageError(
            f"workdir {workdir} holds no run of LeNet-5: the report of another model "
            "is written by Workdir.write_result"
        )
    network = load_network(workdir, which)
    test = network.splits.test
    probabilities = network.probabilities(test.image)
    right = probabilities.argmax(axis=1) == test.label
    best = max((row.get("val_accuracy", 0.0) for row in run.rows), default=0.0)
    facts = {
        "test accuracy": f"{right.mean():.2%}",
        "test examples": len(right),
        "best on validation": f"{best:.2%}" if best else None,
        "parameters": run.result.get("parameters"),
        "epochs": len(run.rows),
        "seconds of training": run.result.get("train_seconds"),
    }
    sections = [
        history_section(run.rows, _rate(config, network, run.rows)),
        *classification_sections(
            probabilities, test.label, network.splits.class_names, test.image
        ),
        _inside(network, right),
        _settings(config),
        *_versions(run),
    ]
    weights = "" if which == "latest" else ", the best epoch"
    title = f"{config.recipe} on {config.dataset}: {run.path}{weights}"
    known = {name: value for name, value in facts.items() if value is not None}
    return write_page(path or run.path / REPORT_FILE, title, sections, known)


def write_own_report(
    workdir: pathlib.Path | str, sections: Sequence[Section] = ()
) -> pathlib.Path:
    """Writes the page about a run of any model: history, result, settings.

    Args:
      workdir: Directory of the run.
      sections: Sections to show after the history.

    Raises:
      UsageError: The directory holds no run, or the file cannot be written.
    """
    run = read_run(workdir)
    own = ("versions", "fingerprint")
    values = {name: value for name, value in run.result.items() if name not in own}
    numbers = {k: v for k, v in values.items() if not isinstance(v, list | dict)}
    pages = [
        history_section(run.rows),
        *sections,
        Section("Settings", [Table(["setting", "value"], [*run.settings.items()])]),
        *_versions(run),
    ]
    return write_page(run.path / REPORT_FILE, str(run.path), pages, numbers)


def try_to_report(write: Callable[[], object]) -> None:
    """Calls a function that writes a report; where it fails, a warning is logged.

    For the end of a run, whose result does not depend on its report.
    """
    try:
        write()
    except Exception as error:  # matplotlib may raise anything
        logging.warning("the report was not written: %s", first_line(error))


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


def _rate(
    config: Config, network: Network, rows: Sequence[Mapping[str, float]]
) -> list[Chart]:
    """Draws the learning rate of the steps that were made."""
    if not rows:
        return []
    per_epoch = -(-network.splits.train_examples // config.batch_size)
    schedule = build_schedule(config, config.epochs * per_epoch)
    steps = np.unique(np.linspace(0, rows[-1]["step"] - 1, _RATES).astype(np.int64))
    rates = [float(schedule(step)) for step in steps]
    line = {"rate": ([*(steps / per_epoch)], rates)}
    return [curves("learning_rate", line)]


def _inside(network: Network, right: np.ndarray) -> Section:
    """Shows the kernels of C1, and the maps of one image of each class."""
    test, splits = network.splits.test, network.splits
    parts: list[Part] = []
    kernels = network.model.c1.convs[0].w.numpy()  # [k, k, channels, filters]
    if kernels.shape[2] in (1, 3):
        images = np.moveaxis(kernels, -1, 0)
        parts.append(tiles(images, title="Kernels of C1", width=64))
    strips: dict[str, list[np.ndarray]] = {"c1": [], "c3": []}
    captions = []
    for label, name in enumerate(splits.class_names):
        chosen = np.flatnonzero((test.label == label) & right)[:1]
        if not len(chosen):
            continue
        image = test.image[chosen[0]]
        maps = network.maps(image)
        strips["c1"].append(_strip([image.mean(axis=-1), *_each(maps["c1"])], 7))
        strips["c3"].append(_strip(_each(maps["c3"]), 8))
        captions.append(name)
    if captions:
        title = "An image of each class, and its maps in C1"
        parts.append(tiles(strips["c1"], captions, title, 280))
        title = "The maps of the same images in C3"
        parts.append(tiles(strips["c3"], captions, title, 200))
    note = "Each picture is scaled from its own least value (black) to its largest."
    return Section("Inside the network", parts, note)


def _each(maps: np.ndarray) -> list[np.ndarray]:
    return [*np.moveaxis(maps, -1, 0)]


def _strip(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Places images [H, W], each scaled on its own, in rows of so many: uint8."""
    scaled = []
    for image in images:
        values = image - image.min()
        grey = np.uint8(255 * values / max(float(values.max()), 1e-9))
        scaled.append(np.pad(grey, 1, constant_values=96))
    rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _settings(config: Config) -> Section:
    defaults = Config().as_dict()
    idle = without_effect(Config, config.as_dict())
    used = {k: v for k, v in config.as_dict().items() if k not in idle}
    changed = [(k, v, defaults[k]) for k, v in used.items() if v != defaults[k]]
    others = [(k, v) for k, v in used.items() if v == defaults[k]]
    parts = [
        Table(["setting", "value", "default"], changed, "Changed"),
        Table(["setting", "value"], others, "As by default"),
    ]
    return Section("Settings", [part for part in parts if part.rows])


def _versions(run: RunFiles) -> list[Section]:
    versions = run.result.get("versions")
    if not isinstance(versions, dict):
        return []
    return [Section("Versions", [Table(["package", "version"], [*versions.items()])])]


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
        (name, *(_as_shown(column, values.get(column)) for column in columns))
        for name, values in zip(_names(runs), found, strict=True)
    ]
    return Table(["run", *(name.replace("_", " ") for name in columns)], rows)


def _as_shown(name: str, value: float | None) -> object:
    if value is None:
        return "–"
    return f"{value:.2%}" if name.endswith("accuracy") else value


def _differing(runs: Sequence[RunFiles]) -> Table:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differing = [
        name
        for name in names
        if any(run.settings.get(name) != runs[0].settings.get(name) for run in runs)
    ]
    rows = [
        (name, *(run.settings.get(setting) for setting in differing))
        for name, run in zip(_names(runs), runs, strict=True)
    ]
    return Table(["run", *differing], rows)


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """Names runs by their directories, without what all of these have in common."""
    parents = [str(run.path.absolute().parent) for run in runs]
    common = os.path.commonpath(parents)
    return [os.path.relpath(run.path.absolute(), common) for run in runs]
