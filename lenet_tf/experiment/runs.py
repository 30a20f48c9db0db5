"""A whole training run in a workdir: data, model, training, test figures, report.

    result = run(Config(epochs=3), workdir)
    result["test_accuracy"]

Given the same workdir again it goes on where it stopped, and when the run is complete
it only reads the result.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import pathlib
import platform
import zlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.restore import find_checkpoint, restore_model
from lenet_tf.checkpoint.storage import saved
from lenet_tf.data import datasets
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.experiment import report
from lenet_tf.experiment.build import as_batches, build_trainer, load_splits
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.workdir import claim
from lenet_tf.files import read_json, write_csv, write_json
from lenet_tf.parallel.strategies import make_strategy
from lenet_tf.parallel.workers import check_alike, is_chief, together
from lenet_tf.signals import StopRequested, StopSignals
from lenet_tf.train.actions import Action, at, every_epoch
from lenet_tf.train.actions.history import HistoryFile
from lenet_tf.train.actions.progress import Progress
from lenet_tf.train.saver import Saver
from lenet_tf.train.trainer import Trainer


def run(config: Config, workdir: pathlib.Path, resume: bool = True) -> dict[str, Any]:
    """Trains by a configuration, evaluates the test split once, writes the results.

    Args:
      config: the settings.
      workdir: gets config.json, history.csv, result.json, report/, checkpoints/, best/.
      resume: whether to go on with a run that the workdir holds.

    Returns:
      What result.json holds; nothing in a worker that is not the chief, which writes
      nothing.

    Raises:
      UsageError: a setting, the data or the workdir is not as it must be.
      StopRequested: SIGTERM or SIGINT came; the run is saved.
    """
    strategy = make_strategy(
        config.num_replicas, config.strategy, worker_timeout=config.worker_timeout
    )
    replicas = strategy.num_replicas_in_sync
    if config.batch_size < replicas:
        raise UsageError(
            f"batch_size is {config.batch_size}: it must be at least num_replicas, "
            f"which is {replicas}"
        )
    splits = load_splits(config)
    settings, held = config.as_dict(), contextlib.ExitStack()
    if is_chief(strategy):
        held.enter_context(claim(workdir, settings, config.free_on_resume()))
    with held, StopSignals() as stop, together(strategy, stop.check) as poll:
        check_alike(strategy, {"the checksum of the flags": _checksum(settings)})
        trainer = build_trainer(config, splits, strategy)
        _train(trainer, config, splits, workdir, resume, poll)
        try:
            test = trainer.evaluate(
                as_batches(splits.test, config.eval_batch_size), poll
            )
        except StopRequested as stopped:
            stopped.args = (f"{stopped}; the same command again evaluates {workdir}",)
            raise
        result = {
            "test_accuracy": test["accuracy"],
            "test_loss": test["loss"],
            "test_examples": test["examples"],
            "train_examples": len(splits.train),
            "validation_examples": len(splits.validation),
            "parameters": count_parameters(trainer.model),
            "epochs": len(trainer.record.rows),
            "train_seconds": round(trainer.record.seconds, 3),
            "replicas": replicas,
            "versions": _versions(),
        }
        if not is_chief(strategy):
            return {}
        write_json(workdir / "result.json", result)
        return result


def _train(
    trainer: Trainer,
    config: Config,
    splits: datasets.Splits,
    workdir: pathlib.Path,
    resume: bool,
    poll: Callable[[], None],
) -> None:
    history_file = workdir / "history.csv"
    if history_file.exists() and not saved(workdir / "checkpoints"):
        raise CheckpointError(
            f"{history_file} tells of a run, but its checkpoints are gone: put them "
            "back, or remove the file to start afresh"
        )
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
    actions: list[Action] = []
    if is_chief(trainer.strategy):
        actions += [Progress(logging.info)]
        actions += [at(every_epoch(), HistoryFile(history_file))]
    history = trainer.fit(
        as_batches(splits.train, config.batch_size, config.seed),
        epochs=config.epochs,
        validation=validation,
        saver=saver,
        actions=actions,
        poll=poll,
    )
    if not is_chief(trainer.strategy):
        return
    # A kill between the last checkpoint and its row leaves the file one row short.
    write_csv(history_file, trainer.record.rows)
    report.write_curves(history, workdir / "report" / "curves.png")


def evaluate(workdir: pathlib.Path, which: str = "latest") -> dict[str, float]:
    """Evaluates the test split with the weights that a run has left.

    Args:
      workdir: of the run.
      which: "latest", the weights of result.json, or "best".

    Returns:
      `test_accuracy`, `test_loss` and `test_examples`.

    Raises:
      UsageError: there is no run, or no checkpoint.
    """
    if not (workdir / "config.json").exists():
        raise UsageError(
            f"workdir {workdir} holds no run: train one there first, or name another"
        )
    config = Config.from_dict(read_json(workdir / "config.json"))
    strategy = make_strategy(kind="mirrored")
    splits = load_splits(config)
    trainer = build_trainer(config, splits, strategy)
    path = find_checkpoint(workdir, which)
    restore_model(trainer.model, path, trainer.average)
    logging.info("weights from %s", path)
    test = trainer.evaluate(as_batches(splits.test, config.eval_batch_size))
    return {
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "test_examples": test["examples"],
    }


def count_parameters(model: tf.Module) -> int:
    """Counts the trainable numbers of a model."""
    return sum(v.shape.num_elements() for v in model.trainable_variables)


def _checksum(settings: dict[str, Any]) -> int:
    """Of what must be alike in every worker: all but where each one's data is."""
    alike = {k: v for k, v in settings.items() if k not in ("data_dir", "idx_dir")}
    return zlib.crc32(json.dumps(alike).encode())


def _versions() -> dict[str, str]:
    packages = ("tensorflow", "tensorflow-datasets", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **versions}
