"""The run directory for any trainer: lock, settings, signals, history, result.

    settings = {"learning_rate": 0.1, "epochs": 3}
    with Workdir("runs/line", settings, free={"epochs"}) as run:
        if run.result is None:
            run.fit(trainer, train, epochs=3, validation=held_out)
            run.write_result({"test_loss": trainer.evaluate(test)["loss"]})
    print(run.result)

The same program started again goes on where it stopped. When the run is complete, it
only reads the result.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.storage import newest_whole
from lenet_tf.data.batches import Batches
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.experiment.reports import try_to_report, write_own_report
from lenet_tf.experiment.results import as_json, read_result, versions, write_result
from lenet_tf.experiment.workdir import claim
from lenet_tf.files import write_csv
from lenet_tf.parallel.workers import any_worker, check_alike, is_chief, together
from lenet_tf.report.curves import draw_all_curves
from lenet_tf.report.parts import Section
from lenet_tf.signals import StopRequested, StopSignals
from lenet_tf.train.actions import Action, at, every_row
from lenet_tf.train.actions.history import HistoryFile
from lenet_tf.train.saver import Saver
from lenet_tf.train.trainer import History, Trainer


class FitOptions(TypedDict, total=False):
    """Arguments of `Trainer.fit` that are passed on as they are."""

    epochs: int | None
    steps: int | None
    validation: Batches | Mapping[str, Batches] | None
    row_steps: int | None
    row_examples: int | None
    data_changed: bool
    progress: bool | None


class Workdir:
    """Context manager that holds a directory for one run of a trainer.

    SIGTERM and Ctrl-C end the program with status 143 or 130 and a line on stderr, once
    the run is saved; so does StopRequested in an action, with status 0. Both are raised
    as SystemExit.

    With several workers, all of them use the same directory, but only the chief writes,
    and all stop together.

    Args:
      path: Folder of the run, made with its parents; gets config.json, history.csv,
        result.json, report.html, report/, checkpoints/ and best/.
      settings: All that the numbers of the run depend on, by name: JSON values, paths,
        or values of NumPy. A run is not resumed with other settings, and its result
        belongs to them, so the number of epochs should be among them.
      free: Names of the settings that may differ when the run is resumed.
      strategy: Strategy of the trainer, needed only with several workers.

    Attributes:
      path: As given.
      result: Content of result.json if the run is complete, else None.

    Raises:
      UsageError: A setting is no JSON value, or `free` names one that is not there. On
        entry: the directory cannot be written, is in use by another process, or holds a
        run of other settings; or the workers' settings differ.
    """

    def __init__(
        self,
        path: pathlib.Path | str,
        settings: Mapping[str, object],
        *,
        free: Collection[str] = (),
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.path = pathlib.Path(path)
        self.result: dict[str, Any] | None = None
        self._settings, self._free = as_json(settings), {*free}
        if unknown := sorted(self._free - self._settings.keys()):
            raise UsageError(
                f"free has {', '.join(unknown)}, but the settings are "
                f"{', '.join(self._settings) or 'empty'}"
            )
        self._strategy = strategy or tf.distribute.get_strategy()
        self._stop = StopSignals()
        self._held = contextlib.ExitStack()
        self._poll: Callable[[], None] | None = None
        self._trainer: Trainer | None = None

    def __enter__(self) -> Workdir:
        with contextlib.ExitStack() as held:
            held.enter_context(self._stop)
            self._poll = held.enter_context(together(self._strategy, self._stop.check))
            check_alike(self._strategy, self._settings)
            if is_chief(self._strategy):
                held.enter_context(claim(self.path, self._settings, self._free))
            result = read_result(self.path, self._settings)
            # All workers train, or none does.
            if not any_worker(self._strategy, result is None):
                self.result = result
                logging.info("%s is complete: this is its result", self.path)
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._poll = None
        self._held.__exit__(kind, error, traceback)
        if error is None and self._stop.received is not None:
            # It came after the last step. What follows, such as another run, must not
            # begin.
            error = StopRequested(self._stop.received)
        if isinstance(error, StopRequested):
            print(error, file=sys.stderr)
            raise SystemExit(error.status) from error

    def fit(
        self,
        trainer: Trainer,
        train: Batches,
        *,
        saver: Saver | None = None,
        actions: Sequence[Action] = (),
        **options: Unpack[FitOptions],
    ) -> History:
        """Trains to the end of the run, and writes checkpoints and history.csv.

        Args:
          trainer: Trainer, whose state is restored if the directory holds a run.
          train: Batches to train on.
          saver: Saver for this directory; by default `Saver(path, seconds=60)`.
          actions: Functions to call after each inner loop, as in `Trainer.fit`.
          **options: Other arguments of `Trainer.fit`, but for `poll`.

        Returns:
          History of the run, as from `Trainer.fit`.

        Raises:
          UsageError: The context was not entered, or the saver or the strategy is not
            that of this directory; and what `Trainer.fit` raises.
          StopRequested: A signal came, or an action asked for it; the run is saved.
        """
        if self._poll is None:
            raise UsageError("fit needs `with lenet_tf.Workdir(...) as run:` around it")
        several = isinstance(
            trainer.strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        if several and trainer.strategy is not self._strategy:
            raise UsageError(
                "the trainer has several workers, of which the run directory does not "
                "know: give Workdir(..., strategy=strategy)"
            )
        saver = saver or Saver(self.path, seconds=60)
        if saver.directory != self.path:
            raise UsageError(
                f"saver is for {saver.directory}: give one for {self.path}"
            )
        self._trainer = trainer
        return fit_in(saver, trainer, train, actions, self._poll, **options)

    def write_result(
        self, values: Mapping[str, object], sections: Sequence[Section] = ()
    ) -> dict[str, Any]:
        """Writes result.json, which makes the run complete, and report.html.

        All workers may call it; only the chief writes.

        Args:
          values: Results by name, such as metrics of the test set: JSON values, paths,
            or values of NumPy.
          sections: Sections of the report besides curves, results and settings, such as
            those of `lenet_tf.report.classification_sections`.

        Returns:
          Content of the file: the values; `steps`, `train_seconds` and `replicas`
          if there was a `fit`; the versions, and a checksum of settings and
          weights. It is also in `result`.

        Raises:
          UsageError: A value is no JSON value, or the file cannot be written.
        """
        if self._poll is None:
            raise UsageError("write_result belongs into the `with` of the Workdir")
        result = as_json(values)
        if self._trainer is None and newest_whole(self.path / "checkpoints") is None:
            raise UsageError(
                f"{self.path} holds no checkpoint, so there is no run to be complete: "
                "call fit before write_result"
            )
        if self._trainer is not None:
            record = self._trainer.record
            result = {
                "steps": record.last_row,
                "train_seconds": round(record.seconds, 3),
                "replicas": self._trainer.strategy.num_replicas_in_sync,
            } | result
        if is_chief(self._strategy):
            result = write_result(
                self.path, self._settings, {**result, "versions": versions()}
            )
            if self._trainer is not None:
                rows = self._trainer.record.rows
                draw_all_curves(rows, self.path / "report" / "curves.png")
            try_to_report(lambda: write_own_report(self.path, sections))
        self.result = result
        return result


def fit_in(
    saver: Saver,
    trainer: Trainer,
    train: Batches,
    actions: Sequence[Action],
    poll: Callable[[], None],
    **options: Unpack[FitOptions],
) -> History:
    """Trains in the saver's directory, and writes history.csv there.

    Raises:
      CheckpointError: The directory has a history, but no checkpoints.
      StopRequested: `poll` or an action asked for it; the run is saved.
    """
    history_file = saver.directory / "history.csv"
    if history_file.exists() and newest_whole(saver.directory / "checkpoints") is None:
        raise CheckpointError(
            f"{history_file} tells of a run, but its checkpoints are gone: put them "
            "back, or remove the file to start afresh"
        )
    chief = is_chief(trainer.strategy)
    if chief:
        actions = [*actions, at(every_row(), HistoryFile(history_file))]
    history = trainer.fit(train, saver=saver, actions=actions, poll=poll, **options)
    if chief:
        # A kill after the last checkpoint leaves the file without its last row.
        write_csv(history_file, trainer.record.rows)
    return history
