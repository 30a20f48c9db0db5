"""The outer loop: epochs, evaluation, and what happens between two inner loops.

    OuterLoop(trainer, batches, epochs, validation, actions, poll).run()

It has no state of its own that a run needs. Where it stands is told by the step and the
record, so it can begin anywhere: also where an epoch's last step is done, and its
evaluation is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import Batches, Block
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import same_steps
from lenet_tf.train.actions import Action, Moment
from lenet_tf.train.inner_loop import steps_in
from lenet_tf.train.state import TrainState


class Trains(Protocol):
    """What the outer loop needs of a trainer."""

    state: TrainState
    strategy: tf.distribute.Strategy
    steps_per_loop: int

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block; returns how many they were."""

    def evaluate(
        self, data: Batches, poll: Callable[[], None]
    ) -> Mapping[str, float | np.ndarray]:
        """Returns metric -> value over all examples."""


class OuterLoop:
    """Runs a trainer through its epochs.

    Args:
      trainer: A trainer that was started on these batches.
      train: Batches to train on.
      epochs: Number of epochs, counted from the beginning of the run.
      validation: Batches to evaluate after each epoch; None evaluates nothing.
      actions: Called in turn after each inner loop.
      poll: Called after the actions, and between the inner loops of an evaluation; it
        ends the run by raising StopRequested.
    """

    def __init__(
        self,
        trainer: Trains,
        train: Batches,
        epochs: int,
        validation: Batches | None,
        actions: Sequence[Action],
        poll: Callable[[], None],
    ) -> None:
        self._trainer, self._train, self._epochs = trainer, train, epochs
        self._validation, self._actions, self._poll = validation, actions, poll
        self._examples, self._seconds = 0, 0.0  # of this epoch's inner loops
        self._last_time = time.perf_counter()

    def run(self) -> None:
        """Trains from where the trainer stands to the end of the last epoch."""
        trainer = self._trainer
        self._poll()
        if self.row_is_due():
            self._between_loops(0)
        blocks = self._train.blocks(
            trainer.strategy.num_replicas_in_sync,
            trainer.steps_per_loop,
            start_step=self._step(),
            epochs=self._epochs,
        )
        for block in same_steps(trainer.strategy, blocks, steps_in):
            before, began = self._step(), time.perf_counter()
            steps = trainer.train_on(block)
            self._seconds += time.perf_counter() - began
            self._examples += self._examples_until(before + steps)
            self._examples -= self._examples_until(before)
            self._between_loops(steps)

    def row_is_due(self) -> bool:
        """Whether an epoch's last step is done, and its row is not."""
        epochs, left = divmod(self._step(), self._train.steps_per_epoch)
        return left == 0 and epochs > len(self._trainer.state.record.rows)

    def _step(self) -> int:
        return int(value_of(self._trainer.state.step))

    def _examples_until(self, step: int) -> int:
        """Returns how many examples the first steps of the run have; no padding."""
        epochs, left = divmod(step, self._train.steps_per_epoch)
        return epochs * self._train.examples + left * self._train.batch_size

    def _between_loops(self, loop_steps: int) -> None:
        """Ends the epoch if its last step is done, then calls the actions."""
        state = self._trainer.state
        step, metrics = self._step(), state.metrics.result()
        epoch = -(-step // self._train.steps_per_epoch)
        row = self._end_epoch(epoch, step) if self.row_is_due() else None
        now = time.perf_counter()
        state.record.seconds += now - self._last_time
        self._last_time = now
        moment = Moment(
            step=step,
            loop_steps=loop_steps,
            epoch=epoch,
            epochs=self._epochs,
            steps_per_epoch=self._train.steps_per_epoch,
            images_per_second=self._examples / self._seconds if self._seconds else 0.0,
            seconds=state.record.seconds,
            row=row,
            metrics=metrics,
            state=state,
        )
        for action in self._actions:
            action(moment)
        if row is not None:
            self._examples, self._seconds = 0, 0.0
        self._poll()

    def _end_epoch(self, epoch: int, step: int) -> dict[str, float]:
        """Evaluates, records the epoch's row, and clears the training metrics."""
        state = self._trainer.state
        row: dict[str, float] = {"epoch": epoch, "step": step}
        row |= state.metrics.result()
        if self._validation is not None:
            values = self._trainer.evaluate(self._validation, self._poll)
            row |= {f"val_{k}": v for k, v in values.items() if isinstance(v, float)}
        state.record.rows.append(row)
        state.metrics.reset()
        return row
