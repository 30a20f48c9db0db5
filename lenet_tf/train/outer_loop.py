"""The outer loop: runs inner loops, ends epochs with an evaluation, calls actions.

    OuterLoop(trainer, batches, epochs, validation, actions, poll).run()

It keeps no state that a resumed run needs: the step and the record tell how far the run
has come. So it can begin at any step, also between an epoch's last step and its
evaluation.
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
from lenet_tf.train.actions import Action, Enough, Moment
from lenet_tf.train.inner_loop import steps_in
from lenet_tf.train.model_state import check_copies
from lenet_tf.train.state import TrainState


class TrainerLike(Protocol):
    """What the outer loop needs of a trainer."""

    state: TrainState
    strategy: tf.distribute.Strategy
    steps_per_loop: int

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block; returns their number."""

    def evaluate(
        self, data: Batches, poll: Callable[[], None]
    ) -> Mapping[str, float | np.ndarray]:
        """Returns metric -> value over all examples."""


class OuterLoop:
    """Runs a trainer through its epochs.

    Args:
      trainer: Trainer, already started on these batches.
      train: Batches to train on.
      epochs: Total number of epochs of the run, including those already done.
      validation: Batches to evaluate after each epoch, or None.
      actions: Functions that are called in turn after each inner loop.
      poll: Function that is called at the start, after the actions, and between the
        inner loops of an evaluation; it ends the run by raising StopRequested.
    """

    def __init__(
        self,
        trainer: TrainerLike,
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
        """Trains from the trainer's present step to the end of the last epoch."""
        trainer, record = self._trainer, self._trainer.state.record
        if record.ended is not None and self._epochs <= record.ended:
            raise Enough("an action has ended it before")
        record.ended = None
        self._poll()
        if self.row_is_due():
            self._between_loops(0)
        start = self._step()
        blocks = self._train.blocks(
            trainer.strategy.num_replicas_in_sync,
            trainer.steps_per_loop,
            start_step=start,
            epochs=self._epochs,
        )
        for block in same_steps(trainer.strategy, blocks, steps_in):
            before, began = self._step(), time.perf_counter()
            steps = trainer.train_on(block)
            self._seconds += time.perf_counter() - began
            self._examples += self._examples_until(before + steps)
            self._examples -= self._examples_until(before)
            if before == start or self.row_is_due():
                check_copies(trainer.state.model.variables)
            self._between_loops(steps)

    def row_is_due(self) -> bool:
        """Whether an epoch's last step is done, but its row is not in the history."""
        epochs, left = divmod(self._step(), self._train.steps_per_epoch)
        return left == 0 and epochs > len(self._trainer.state.record.rows)

    def _step(self) -> int:
        return int(value_of(self._trainer.state.step))

    def _examples_until(self, step: int) -> int:
        """Returns the number of examples in the first `step` steps, without padding."""
        epochs, left = divmod(step, self._train.steps_per_epoch)
        return epochs * self._train.examples + left * self._train.batch_size

    def _between_loops(self, loop_steps: int) -> None:
        """Ends the epoch if its last step is done; then calls the actions and poll."""
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
        end: Enough | None = None
        for action in self._actions:
            try:
                action(moment)
            except Enough as enough:  # the others still save and report
                end, state.record.ended = enough, self._epochs
        if row is not None:
            self._examples, self._seconds = 0, 0.0
        if end is not None:
            raise end
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
