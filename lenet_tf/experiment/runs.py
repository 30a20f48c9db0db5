"""A whole training run in a workdir: data, model, training, test figures, report.

    result = run(Config(epochs=3), "runs/mnist")
    result["test_accuracy"], result["val_accuracy"]

Given the same workdir again, `run` goes on where it stopped. When the run is complete,
it only reads the result.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.restore import find_checkpoint, restore_model
from lenet_tf.data import datasets
from lenet_tf.errors import UsageError
from lenet_tf.experiment.build import as_batches, build_trainer, load_splits
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.plan import plan
from lenet_tf.experiment.reports import REPORT_FILE, try_to_report, write_report
from lenet_tf.experiment.results import read_result, versions, write_result
from lenet_tf.experiment.run_directory import fit_in
from lenet_tf.experiment.tensorboard import make_tensorboard
from lenet_tf.experiment.workdir import check_settings, claim
from lenet_tf.files import read_json
from lenet_tf.parallel.strategies import make_strategy
from lenet_tf.parallel.workers import check_alike, is_chief, together
from lenet_tf.report.curves import draw_curves
from lenet_tf.signals import StopRequested, StopSignals
from lenet_tf.train.actions import Action
from lenet_tf.train.actions.progress import Progress
from lenet_tf.train.saver import Saver
from lenet_tf.train.trainer import Trainer


def run(
    config: Config,
    workdir: pathlib.Path | str,
    resume: bool = True,
    actions: Sequence[Action] = (),
    report: bool = True,
    dry_run: bool = False,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Trains by a configuration, evaluates the test split once, writes the results.

    Args:
      config: Settings of the run.
      workdir: Directory of the run; gets config.json, history.csv, result.json,
        report.html, report/, checkpoints/ and best/.
      resume: Whether to go on with a run that the workdir holds.
      actions: Functions to call after each inner loop, as in `Trainer.fit`.
      report: Whether to write report.html.
      dry_run: Whether to log only what the run would do, and to write nothing.
      tensorboard: Whether to write the folder tensorboard/: metrics, settings, and the
        worst mistakes if examples are held out.

    Returns:
      What result.json holds: `test_accuracy` and `test_loss`, `val_accuracy` and
      `val_loss` of the last epoch if examples are held out, counts, seconds, versions.
      An empty dict after a dry run, and in a worker that is not the chief, which writes
      nothing.

    Raises:
      UsageError: A setting, the data or the workdir is not as it must be.
      StopRequested: SIGTERM or SIGINT came; the run is saved.
    """
    workdir, settings = pathlib.Path(workdir), config.as_dict()
    strategy = make_strategy(
        config.num_replicas,
        config.strategy,
        batch_size=config.batch_size,
        worker_timeout=config.worker_timeout,
    )
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if resume and not several and (result := read_result(workdir, settings)):
        logging.info("%s is complete: this is its result", workdir)
        if report and not dry_run and not (workdir / REPORT_FILE).exists():
            try_to_report(lambda: write_report(workdir))
        return result
    splits = load_splits(config)
    with StopSignals() as stop, contextlib.ExitStack() as held:
        poll = held.enter_context(together(strategy, stop.check))
        check_alike(strategy, _alike(settings, splits))
        trainer = build_trainer(config, splits, strategy)
        free, defaults = config.free_on_resume(), Config().as_dict()
        if dry_run:
            check_settings(workdir, settings, free, defaults)
        elif is_chief(strategy):
            held.enter_context(claim(workdir, settings, free, defaults))
        if is_chief(strategy):
            for line in plan(config, splits, trainer, workdir):
                logging.info(line)
        if dry_run:
            return {}
        if tensorboard:
            board = make_tensorboard(config, splits, workdir / "tensorboard")
            actions = [*actions, board]
        _train(trainer, config, splits, workdir, resume, poll, actions)
        try:
            test = trainer.evaluate(
                as_batches(splits.test, config.eval_batch_size), poll
            )
        except StopRequested as stopped:
            stopped.args = (f"{stopped}; the same command again evaluates {workdir}",)
            raise
        if not is_chief(strategy):
            return {}
        last = trainer.record.rows[-1] if trainer.record.rows else {}
        result = {
            **_test_figures(test),
            **{name: value for name, value in last.items() if name.startswith("val_")},
            "train_examples": len(splits.train),
            "validation_examples": len(splits.validation),
            "parameters": count_parameters(trainer.model),
            "epochs": len(trainer.record.rows),
            "train_seconds": round(trainer.record.seconds, 3),
            "replicas": strategy.num_replicas_in_sync,
            "versions": versions(),
        }
        result = write_result(workdir, settings, result)
        draw_curves(trainer.record.history(), workdir / "report" / "curves.png")
        if report:
            try_to_report(lambda: write_report(workdir))
        return result


def _train(
    trainer: Trainer,
    config: Config,
    splits: datasets.Splits,
    workdir: pathlib.Path,
    resume: bool,
    poll: Callable[[], None],
    actions: Sequence[Action],
) -> None:
    validation = None
    if len(splits.validation):
        validation = as_batches(splits.validation, config.eval_batch_size)
    saver = Saver(
        workdir,
        resume=resume,
        steps=config.save_steps,
        seconds=config.save_seconds,
        keep=config.keep,
        background=config.background_save,
    )
    train = as_batches(splits.train, config.batch_size, config.seed)
    if is_chief(trainer.strategy):
        actions = [Progress(logging.info), *actions]
    fit_in(
        saver,
        trainer,
        train,
        actions,
        poll,
        epochs=config.epochs,
        validation=validation,
    )


def evaluate(workdir: pathlib.Path | str, which: str = "latest") -> dict[str, Any]:
    """Evaluates the test split with the weights that a run has left.

    Args:
      workdir: Directory of the run.
      which: "latest" for the weights of result.json, or "best" for those of the best
        epoch on the validation split.

    Returns:
      `test_accuracy`, `test_loss` and `test_examples`.

    Raises:
      UsageError: The directory holds no run, no checkpoint, or cannot be read.
    """
    workdir = pathlib.Path(workdir)
    config_file = workdir / "config.json"
    if not any(path.name == config_file.name for path in _listed(workdir)):
        raise UsageError(
            f"workdir {workdir} holds no run: train one there first, or name another"
        )
    config = Config.from_dict(read_json(config_file))
    path = find_checkpoint(workdir, which)
    strategy = make_strategy(kind="mirrored")
    splits = load_splits(config)
    trainer = build_trainer(config, splits, strategy)
    restore_model(trainer.model, path, trainer.state.average)
    logging.info("weights from %s", path)
    return _test_figures(
        trainer.evaluate(as_batches(splits.test, config.eval_batch_size))
    )


def count_parameters(model: tf.Module) -> int:
    """Counts the trainable numbers of a model."""
    return sum(v.shape.num_elements() for v in model.trainable_variables)


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from error


def _test_figures(test: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("accuracy", "loss", "examples")
    return {f"test_{key}": test[key] for key in keys}


def _alike(
    settings: Mapping[str, object], splits: datasets.Splits
) -> dict[str, object]:
    """Returns what must be the same in all workers: all but where the data is."""
    own = ("data_dir", "idx_dir")
    return {
        **{name: value for name, value in settings.items() if name not in own},
        "the number of training examples": splits.train_examples,
        "the number of validation examples": splits.validation_examples,
        "the number of test examples": splits.test_examples,
    }
