"""The page about a run, report.html.

    write_report("runs/mnist")

`run` writes it at the end of each run, and `Workdir.write_result` for other models.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from lenet_tf.errors import UsageError
from lenet_tf.experiment.build import build_schedule
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.network import Network, load_network
from lenet_tf.experiment.run_files import RunFiles, metric_text, read_run
from lenet_tf.experiment.settings import without_effect
from lenet_tf.files import first_line
from lenet_tf.report.charts import curves
from lenet_tf.report.classification import classification_sections
from lenet_tf.report.history import history_section
from lenet_tf.report.page import check_installed, write_page
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
    check_installed()
    run = read_run(workdir)
    config = run.config
    if config is None:
        raise UsageError(
            f"workdir {workdir} holds no run of LeNet-5: the report of another model "
            "is written by Workdir.write_result, or again by write_own_report"
        )
    network = load_network(workdir, which)
    test = network.splits.test
    probabilities = network.probabilities(test.image)
    right = probabilities.argmax(axis=1) == test.label
    best = max((row.get("val_accuracy", 0.0) for row in run.rows), default=0.0)
    total = config.epochs * _steps_per_epoch(config, network)
    facts = {
        "not complete": None if run.result else f"step {network.step:,} of {total:,}",
        "test accuracy": f"{right.mean():.2%}",
        "test examples": len(right),
        "best on validation": f"{best:.2%}" if best else None,
        "parameters": run.result.get("parameters"),
        "epochs": run.result.get("epochs", len(run.rows)),
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
    check_installed()
    run = read_run(workdir)
    own = ("versions", "fingerprint")
    values = {name: value for name, value in run.result.items() if name not in own}
    numbers = {
        name.replace("_", " "): metric_text(name, value)
        for name, value in values.items()
        if not isinstance(value, list | dict)
    }
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


def _rate(
    config: Config, network: Network, rows: Sequence[Mapping[str, float]]
) -> list[Chart]:
    """Draws the learning rate of the steps that were made."""
    if not rows or "learning_rate" in rows[-1]:  # it is drawn as a metric
        return []
    per_epoch = _steps_per_epoch(config, network)
    schedule = build_schedule(config, config.epochs * per_epoch)
    steps = np.unique(np.linspace(0, rows[-1]["step"] - 1, _RATES).astype(np.int64))
    rates = [float(schedule(step)) for step in steps]
    line = {"rate": ([*(steps / per_epoch)], rates)}
    return [curves("learning_rate", line)]


def _steps_per_epoch(config: Config, network: Network) -> int:
    return -(-network.splits.train_examples // config.batch_size)


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
