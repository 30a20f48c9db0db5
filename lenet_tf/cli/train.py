"""Trains LeNet-5, evaluates the test split once, and leaves it all in the workdir.

    python -m lenet_tf train
    python -m lenet_tf train --dataset=fashion_mnist --epochs=10 --workdir=runs/fashion
    python -m lenet_tf train --config=runs/mnist/config.json --seed=1 --workdir=runs/1

The defaults are the reference recipe on MNIST. The same command again goes on where a
stopped run was, in the middle of an epoch too.
"""

from __future__ import annotations

import sys

from absl import flags

from lenet_tf.cli import program, setting_flags
from lenet_tf.cli.colours import BOLD, paint
from lenet_tf.errors import UsageError
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.recipes import recipe
from lenet_tf.experiment.reports import REPORT_FILE
from lenet_tf.experiment.runs import run
from lenet_tf.files import read_json
from lenet_tf.train import JsonLines

setting_flags.define(Config)
with program.group("Recipe"):
    _CONFIG = program.define_path(
        "config",
        None,
        "Path of the config.json of a run whose settings are taken in place of a "
        "recipe's; flags that are given override them.",
    )
with program.group("Run directory"):
    _WORKDIR = program.define_path(
        "workdir", "runs/mnist", "Directory where the run is kept."
    )
    _RESUME = flags.DEFINE_bool(
        "resume", True, "Whether to go on with the run that the workdir holds."
    )
    _REPORT = flags.DEFINE_bool(
        "report", True, "Whether to write report.html at the end of the run."
    )
    _DRY_RUN = flags.DEFINE_bool(
        "dry_run", False, "Whether to tell only what the run would do."
    )
with program.group("Watching"):
    _TENSORBOARD = flags.DEFINE_bool(
        "tensorboard",
        False,
        "Whether to write metrics, settings and the worst mistakes on the validation "
        "split to the folder `tensorboard` of the workdir.",
    )
    _LOOPS = flags.DEFINE_bool(
        "loops", False, "Whether to write a line of JSON for each loop to loops.jsonl."
    )


def _config() -> Config:
    given = setting_flags.given(Config)
    if _CONFIG.value is None:
        return Config.from_dict(recipe(flags.FLAGS["recipe"].value), **given)
    if "recipe" in given:
        raise flags.Error("recipe and config are both given: leave one out")
    try:
        settings = read_json(_CONFIG.value)
        Config.from_dict(settings)
    except UsageError as error:
        raise flags.Error(f"config is {_CONFIG.value}: {error}") from error
    return Config.from_dict(settings, **given)


def _main() -> None:
    workdir = _WORKDIR.value
    loops = [JsonLines(workdir / "loops.jsonl")] if _LOOPS.value else []
    result = run(
        _config(),
        workdir,
        resume=_RESUME.value,
        actions=loops,
        report=_REPORT.value,
        dry_run=_DRY_RUN.value,
        tensorboard=_TENSORBOARD.value,
    )
    if not result:  # of a dry run, or of a worker that is not the chief
        return
    page = workdir / REPORT_FILE
    place = page if page.exists() else workdir
    accuracy = f"test accuracy {result['test_accuracy']:.2%}"
    print(
        f"{paint(accuracy, BOLD, sys.stdout)}, test loss "
        f"{result['test_loss']:.4f}, {result['test_examples']:,} test examples, "
        f"{result['parameters']:,} parameters, {result['train_seconds']:.0f} s of "
        f"training on {result['replicas']} replicas; see {place}"
    )


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
