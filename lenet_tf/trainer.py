"""The outer loop: epochs, evaluation, actions, stopping.

    trainer = Trainer(model, Adam(1e-3), classification, strategy=strategy)
    history = trainer.fit(Batches(arrays, 64, seed=0), epochs=3, validation=held_out)
    trainer.evaluate(test)["accuracy"]

One `fit` uses one training trace and one evaluation trace, ragged batches included.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from lenet_tf.actions import Action, Moment, at, every_epoch, every_seconds, every_steps
from lenet_tf.checkpoints import BestCheckpoints, LatestCheckpoints, RunRecord
from lenet_tf.errors import UsageError
from lenet_tf.loop import EvalStep, TrainStep, make_loop, value_names
from lenet_tf.losses import Forward, classification
from lenet_tf.metrics import Accumulators
from lenet_tf.optimizers import Optimizer
from lenet_tf.pipeline import Batches

History = dict[str, list[float]]


class Trainer:
    """Trains a model, and owns all that a run is made of.

    Args:
      model: made in `strategy.scope()`.
      optimizer: its slots are made here, before any step or restore.
      forward: `forward(model, batch, training)` returns a dict of [B] values, `loss`
        among them; all are accumulated, weighted by the batch's `weight`.
      strategy: where to train; the default is one replica on the default device.
      steps_per_loop: steps in the graph between two looks by Python.

    Attributes:
      step: int64 variable, global batches trained on.
      record: history rows and training time.

    Raises:
      UsageError: steps_per_loop below 1, a model without trainable variables, or one
        made outside the strategy's scope.
    """

    def __init__(
        self,
        model: tf.Module,
        optimizer: Optimizer,
        forward: Forward = classification,
        *,
        strategy: tf.distribute.Strategy | None = None,
        steps_per_loop: int = 100,
    ) -> None:
        if steps_per_loop < 1:
            raise UsageError(f"steps_per_loop is {steps_per_loop}: at least 1 is due")
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.strategy = strategy or tf.distribute.get_strategy()
        self.steps_per_loop = steps_per_loop
        self.record = RunRecord()
        variables = model.trainable_variables
        if not variables:
            raise UsageError(f"{model.name} has no trainable variables to train")
        for variable in variables:
            if not self.strategy.extended.variable_created_in_scope(variable):
                raise UsageError(
                    f"{variable.name} was made outside the strategy: make the model "
                    "within `with strategy.scope():`"
                )
        with self.strategy.scope():
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            optimizer.build(variables)
        self.metrics: Accumulators | None = None
        self._train_loop: Any = None
        self._train_spec: dict[str, tf.TensorSpec] = {}
        self._eval: dict[Any, tuple[Any, Accumulators]] = {}

    def fit(
        self,
        train: Batches,
        *,
        epochs: int,
        validation: Batches | None = None,
        workdir: pathlib.Path | str | None = None,
        resume: bool = True,
        save_steps: int | None = None,
        save_seconds: float | None = None,
        keep: int = 3,
        best: str | None = "val_accuracy",
        actions: Sequence[Action] = (),
    ) -> History:
        """Trains to the end of an epoch, from where the workdir's newest checkpoint is.

        Args:
          train: batches to train on.
          epochs: how many, counted from the first run in this workdir.
          validation: evaluated after each epoch, as `val_...`.
          workdir: gets `checkpoints/` and `best/`; without it nothing is written.
          resume: whether to restore the newest checkpoint there.
          save_steps: save at the first loop end in each so many steps.
          save_seconds: save at the first loop end after so many seconds. The end of an
            epoch is always saved.
          keep: how many of the latest checkpoints to keep.
          best: the metric whose best epoch is kept in `best/`; None keeps none. It is
            better when higher, a name that ends in `loss` when lower.
          actions: called in turn after each inner loop, and after saving.

        Returns:
          Metric name -> one value an epoch, from the first on, as Keras gives it.

        Raises:
          UsageError: `epochs` below 0, or `best` names no metric of this run.
          CheckpointError: a checkpoint cannot be read or does not fit.
        """
        if epochs < 0:
            raise UsageError(f"epochs is {epochs}: it must be at least 0")
        self._build(train)
        saving: list[Action] = []
        if workdir is not None:
            saving = self._checkpointing(
                pathlib.Path(workdir),
                resume=resume,
                save_steps=save_steps,
                save_seconds=save_seconds,
                keep=keep,
                best=best if validation is not None else None,
            )
        self._train(train, epochs, validation, [*saving, *actions])
        names = [key for row in self.record.rows[-1:] for key in row]
        return {
            name: [row[name] for row in self.record.rows]
            for name in names
            if name not in ("epoch", "step")
        }

    def evaluate(self, data: Batches) -> dict[str, float]:
        """Computes the mean of every value over a dataset, each example counted once.

        Args:
          data: batches; of one shape and dtype they share one trace.

        Returns:
          Value name -> mean, and `examples`, how many were counted.
        """
        replicas = self.strategy.num_replicas_in_sync
        loop, metrics = self._eval_loop(data.spec(replicas))
        metrics.reset()
        for block in data.blocks(replicas, self.steps_per_loop, epochs=1):
            loop(block)
        return {**metrics.result(), "examples": int(metrics.examples.numpy())}

    @property
    def traces(self) -> dict[str, int]:
        """How often the training loop and the evaluation loops were traced."""
        train, evaluation = self._train_loop, [loop for loop, _ in self._eval.values()]
        count = [f.experimental_get_tracing_count() for f in evaluation]
        return {
            "train": train.experimental_get_tracing_count() if train else 0,
            "evaluate": sum(count),
        }

    def _build(self, train: Batches) -> None:
        spec = train.spec(self.strategy.num_replicas_in_sync)
        if self.metrics is None:
            names = value_names(self.forward, self.model, spec)
            with self.strategy.scope():
                self.metrics = Accumulators(names)
        step = TrainStep(
            self.model, self.optimizer, self.forward, self.metrics, self.step
        )
        if self._train_loop is None or spec != self._train_spec:
            self._train_loop = make_loop(self.strategy, step, spec)
            self._train_spec = spec
        self.checkpoint = tf.train.Checkpoint(
            model=self.model,
            optimizer=self.optimizer,
            metrics=self.metrics,
            step=self.step,
            record=self.record,
        )

    def _checkpointing(
        self,
        workdir: pathlib.Path,
        *,
        resume: bool,
        save_steps: int | None,
        save_seconds: float | None,
        keep: int,
        best: str | None,
    ) -> list[Action]:
        """Restores, and returns the actions that save."""
        latest = LatestCheckpoints(self.checkpoint, workdir / "checkpoints", keep)
        if resume:
            path = latest.restore()
            if path is not None:
                logging.info("resumed at step %d from %s", int(self.step.numpy()), path)

        def save(moment: Moment) -> None:
            latest.save(moment.step)

        actions = []
        if best is not None:
            mode = "min" if best.endswith("loss") else "max"
            keeper = BestCheckpoints(self.checkpoint, workdir / "best", best, mode)

            def offer(moment: Moment) -> None:
                assert moment.row is not None
                if best not in moment.row:
                    raise UsageError(
                        f"best is {best!r}: this run has {', '.join(moment.row)}"
                    )
                keeper.offer(moment.step, dict(moment.row))

            actions.append(at(every_epoch(), offer))
        actions.append(at(every_epoch(), save))
        if save_steps is not None:
            actions.append(at(every_steps(save_steps), save))
        if save_seconds is not None:
            actions.append(at(every_seconds(save_seconds), save))
        return actions

    def _train(
        self,
        train: Batches,
        epochs: int,
        validation: Batches | None,
        actions: Sequence[Action],
    ) -> None:
        replicas, steps_per_epoch = (
            self.strategy.num_replicas_in_sync,
            train.steps_per_epoch,
        )
        assert self.metrics is not None
        step, earlier = int(self.step.numpy()), self.record.seconds
        began = epoch_began = time.perf_counter()
        paused, trained = 0.0, 0
        for block in train.blocks(
            replicas, self.steps_per_loop, start_step=step, epochs=epochs
        ):
            before, step = step, step + int(block["weight"].shape[0])
            self._train_loop(block)
            if int(self.step.numpy()) != step:
                raise RuntimeError(
                    f"the loop went from {before} to {int(self.step.numpy())}"
                )
            trained += min(train.batch_size * (step - before), train.examples)
            rate = trained / (time.perf_counter() - epoch_began - paused)
            metrics, row = self.metrics.result(), None
            if step % steps_per_epoch == 0:
                row = self._end_epoch(step // steps_per_epoch, step, validation)
            self.record.seconds = earlier + time.perf_counter() - began
            moment = Moment(
                step=step,
                loop_steps=step - before,
                epoch=math.ceil(step / steps_per_epoch),
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                images_per_second=rate,
                seconds=self.record.seconds,
                row=row,
                metrics=metrics,
                trainer=self,
            )
            for action in actions:
                action(moment)
            if row is not None:
                epoch_began, trained = time.perf_counter(), 0

    def _end_epoch(
        self, epoch: int, step: int, validation: Batches | None
    ) -> dict[str, float]:
        """Evaluates, records the epoch's row, and clears the training metrics."""
        assert self.metrics is not None
        row: dict[str, float] = {"epoch": epoch, "step": step, **self.metrics.result()}
        if validation is not None:
            values = self.evaluate(validation)
            row |= {f"val_{k}": v for k, v in values.items() if k != "examples"}
        self.record.rows.append(row)
        self.metrics.reset()
        return row

    def _eval_loop(self, spec: dict[str, tf.TensorSpec]) -> tuple[Any, Accumulators]:
        key = tuple(sorted((k, tuple(s.shape), s.dtype) for k, s in spec.items()))
        if key not in self._eval:
            names = value_names(self.forward, self.model, spec)
            with self.strategy.scope():
                metrics = Accumulators(names)
            step = EvalStep(self.model, self.forward, metrics)
            self._eval[key] = make_loop(self.strategy, step, spec), metrics
        return self._eval[key]
