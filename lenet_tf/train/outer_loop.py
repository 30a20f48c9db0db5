"""The outer loop: runs inner loops, makes the rows of the history, calls actions.

    OuterLoop(trainer, batches, rows, validation, actions, saver, poll).run()

It keeps no state that a resumed run needs: the step and the record tell how far the run
has come. So it can begin at any step, even between an epoch's last step and its row.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import Batches, Block
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import any_worker, same_steps
from lenet_tf.signals import StopRequested
from lenet_tf.train.actions import Action, Enough, Moment, in_order, stateful
from lenet_tf.train.inner_loop import part_of, steps_in
from lenet_tf.train.model_state import check_copies
from lenet_tf.train.rows import Rows
from lenet_tf.train.state import TrainState


class TrainerLike(Protocol):
    """What the outer loop needs of a trainer."""

    state: TrainState
    strategy: tf.distribute.Strategy
    steps_per_loop: int
    shares: int

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block; returns their number."""

    def training_metrics(self) -> Mapping[str, float]:
        """Returns metric -> value since the last row."""

    def evaluate(
        self, data: Batches, poll: Callable[[], None]
    ) -> Mapping[str, float | np.ndarray]:
        """Returns metric -> value over all examples."""


class OuterLoop:
    """Runs a trainer to the end of its run.

    Args:
      trainer: Trainer, already started on these batches.
      train: Batches to train on.
      rows: Steps at which rows of the history are due, and the run's end.
      validation: Prefix of the metrics' names -> batches to evaluate for each row.
      actions: Functions that are called in turn after each inner loop.
      save: Function that saves the run if a checkpoint is due. It is called after the
        actions whose changes are saved, and before those with `after_save`. None saves
        nothing.
      poll: Function that is called at the start, after the actions, and between the
        inner loops of an evaluation; it ends the run by raising StopRequested.
    """

    def __init__(
        self,
        trainer: TrainerLike,
        train: Batches,
        rows: Rows,
        validation: Mapping[str, Batches],
        actions: Sequence[Action],
        save: Action | None,
        poll: Callable[[], None],
    ) -> None:
        self._trainer, self._train, self._rows = trainer, train, rows
        self._validation, self._poll = validation, poll
        self._before_save, self._from_save = in_order(actions, save)
        self._remembering = dict(stateful(actions))
        self._examples, self._seconds = 0, 0.0  # of the inner loops since the last row
        self._last_time = time.perf_counter()

    def run(self) -> None:
        """Trains from the trainer's present step to the end of the run."""
        trainer, record = self._trainer, self._trainer.state.record
        if record.ended is not None and self._rows.end <= record.ended:
            raise Enough("an action has ended it before")
        record.ended = None
        self._poll()
        if self.row_is_due():
            self._between_loops(0)
        start = self.step
        blocks = self._train.blocks(
            trainer.shares,
            trainer.steps_per_loop,
            start_step=start,
            epochs=-(-self._rows.end // self._train.steps_per_epoch),
            part=part_of(trainer.strategy),
        )
        blocks = same_steps(trainer.strategy, blocks, steps_in)
        for block in self._rows.cut(blocks, start):
            before, began = self.step, time.perf_counter()
            steps = trainer.train_on(block)
            self._seconds += time.perf_counter() - began
            self._examples += self._rows.examples_until(before + steps)
            self._examples -= self._rows.examples_until(before)
            if before == start or self.row_is_due():
                check_copies(trainer.state.model.variables)
            self._between_loops(steps)

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(value_of(self._trainer.state.step))

    def row_is_due(self) -> bool:
        """Whether the present step has a row that is not in the history yet."""
        return self._rows.is_due(self.step, self._trainer.state.record.last_row)

    def _between_loops(self, loop_steps: int) -> None:
        """Makes a row if one is due; then calls the actions and poll."""
        state, per_epoch = self._trainer.state, self._train.steps_per_epoch
        step, metrics = self.step, state.metrics.result()
        row = self._make_row() if self.row_is_due() else None
        now = time.perf_counter()
        state.record.seconds += now - self._last_time
        self._last_time = now
        moment = Moment(
            step=step,
            loop_steps=loop_steps,
            steps=self._rows.end,
            epoch=-(-step // per_epoch),
            epochs=-(-self._rows.end // per_epoch),
            steps_per_epoch=per_epoch,
            examples_per_second=self._examples / self._seconds if self._seconds else 0,
            seconds=state.record.seconds,
            row=row,
            metrics=metrics,
            state=state,
        )
        end = self._call(self._before_save, moment)
        if isinstance(end, Enough) and row is None and step > state.record.last_row:
            row = self._make_row()  # the last steps of a run are in its history
            moment = dataclasses.replace(moment, row=row)
        for name, action in self._remembering.items():
            state.record.actions[name] = action.state()
        end = self._call(self._from_save, moment) or end
        if row is not None:
            self._examples, self._seconds = 0, 0.0
        if end is not None:
            raise end
        self._poll()

    def _call(
        self, actions: Sequence[Action], moment: Moment
    ) -> Enough | StopRequested | None:
        """Calls all actions given; returns the exception to raise after the save."""
        enough: Enough | None = None
        stop: StopRequested | None = None
        for action in actions:
            try:
                action(moment)
            except Enough as raised:  # the others still save and report
                enough = raised
            except StopRequested as raised:
                stop = raised
        if any_worker(self._trainer.strategy, enough is not None):
            moment.state.record.ended = self._rows.end
            enough = enough or Enough("an action of another worker has ended it")
        return stop or enough

    def _make_row(self) -> dict[str, float]:
        """Evaluates, adds a row to the history, and clears the training metrics."""
        state, step = self._trainer.state, self.step
        epoch = -(-step // self._train.steps_per_epoch)
        row: dict[str, float] = {"epoch": epoch, "step": step}
        row |= self._trainer.training_metrics()
        for prefix, data in self._validation.items():
            values = self._trainer.evaluate(data, self._poll).items()
            row |= {f"{prefix}_{k}": v for k, v in values if isinstance(v, float)}
        state.record.rows.append(row)
        state.metrics.reset()
        return row
