"""The outer loop: epochs, evaluation, and what happens between two inner loops.

    OuterLoop(trainer, batches, epochs, validation, actions, poll).run()

It has no state of its own that a run needs: where it stands is the trainer's step and
record, so it can begin anywhere, between an epoch's last step and its row too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lenet_tf.data.batches import Batches
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import check_alike
from lenet_tf.train.actions import Action, Moment


class OuterLoop:
    """Runs a trainer through its epochs.

    Args:
      trainer: a `Trainer` that was started on these batches.
      train: batches to train on.
      epochs: how many, counted from the run's beginning.
      validation: evaluated after each epoch.
      actions: called in turn after each inner loop.
      poll: called after them; it may raise.
    """

    def __init__(
        self,
        trainer: Any,
        train: Batches,
        epochs: int,
        validation: Batches | None,
        actions: Sequence[Action],
        poll: Callable[[], None],
    ) -> None:
        self._trainer, self._train, self._epochs = trainer, train, epochs
        self._validation, self._actions, self._poll = validation, actions, poll
        self._examples, self._seconds = 0, 0.0  # of this epoch's inner loops
        self._looked = time.perf_counter()

    def run(self) -> None:
        """Trains from the trainer's step to the end of the last epoch."""
        trainer, train = self._trainer, self._train
        self._poll()
        step = int(value_of(trainer.step))
        check_alike(trainer.strategy, "the step to go on from", step)
        if self.row_is_due():
            self._look(0)
        for block in train.blocks(
            trainer.strategy.num_replicas_in_sync,
            trainer.steps_per_loop,
            start_step=step,
            epochs=self._epochs,
        ):
            began = time.perf_counter()
            steps = trainer.train_on(block)
            self._seconds += time.perf_counter() - began
            self._examples += min(steps * train.batch_size, train.examples)
            self._look(steps)

    def row_is_due(self) -> bool:
        """Tells whether an epoch's last step is done, and its row is not."""
        step = int(value_of(self._trainer.step))
        epochs, left = divmod(step, self._train.steps_per_epoch)
        return left == 0 and epochs > len(self._trainer.record.rows)

    def _look(self, loop_steps: int) -> None:
        """What happens between two inner loops."""
        trainer, record = self._trainer, self._trainer.record
        step, metrics = int(value_of(trainer.step)), trainer.metrics.result()
        epoch = -(-step // self._train.steps_per_epoch)
        row = self._end_epoch(epoch, step) if self.row_is_due() else None
        now = time.perf_counter()
        record.seconds, self._looked = record.seconds + now - self._looked, now
        moment = Moment(
            step=step,
            loop_steps=loop_steps,
            epoch=epoch,
            epochs=self._epochs,
            steps_per_epoch=self._train.steps_per_epoch,
            images_per_second=self._examples / self._seconds if self._seconds else 0.0,
            seconds=record.seconds,
            row=row,
            metrics=metrics,
            trainer=trainer,
        )
        for action in self._actions:
            action(moment)
        if row is not None:
            self._examples, self._seconds = 0, 0.0
        self._poll()

    def _end_epoch(self, epoch: int, step: int) -> dict[str, float]:
        """Evaluates, records the epoch's row, and clears the training metrics."""
        trainer = self._trainer
        row: dict[str, float] = {"epoch": epoch, "step": step}
        row |= trainer.metrics.result()
        if self._validation is not None:
            values = trainer.evaluate(self._validation, self._poll)
            row |= {f"val_{k}": v for k, v in values.items() if isinstance(v, float)}
        trainer.record.rows.append(row)
        trainer.metrics.reset()
        return row
