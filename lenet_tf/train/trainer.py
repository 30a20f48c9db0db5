"""Trains a model, evaluates it, and owns what a run is made of.

    trainer = Trainer(model, Adam(1e-3), forward, strategy=strategy)
    history = trainer.fit(Batches(arrays, 64, seed=0), epochs=3, validation=held_out)
    trainer.evaluate(test)["accuracy"]

One `fit` uses one training trace and one evaluation trace, ragged batches included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import NonFiniteError, UsageError
from lenet_tf.nn.losses import Forward, classification
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import check_alike
from lenet_tf.signals import StopRequested
from lenet_tf.train.actions import Action, Enough, close, in_order
from lenet_tf.train.evaluation import Evaluation
from lenet_tf.train.failures import non_finite
from lenet_tf.train.inner_loop import InnerLoop, steps_in
from lenet_tf.train.metrics import Accumulators
from lenet_tf.train.model_state import check_state
from lenet_tf.train.outer_loop import OuterLoop
from lenet_tf.train.outputs import Spec, preview_training
from lenet_tf.train.saver import Saver
from lenet_tf.train.state import RunRecord, make_state
from lenet_tf.train.step import Batch, Step, TrainStep
from lenet_tf.train.update import Rule, Update

History = dict[str, list[float]]


class Trainer:
    """Trains a model, and owns all that a run is made of.

    Args:
      model: The model, made in `strategy.scope()`.
      optimizer: The update rule of all its trainable variables; or name -> `Update`,
        for several optimizers or losses, or to train some of the variables only. The
        slots are made here, before any step or restore.
      forward: `forward(model, batch, training)` returns a dict of [B, ...] values,
        the loss [B] among them. All are summed over the examples, weighted by the
        batch's `weight`: scalars become means, what has more axes stays a sum.
      strategy: Where to train; the default is one replica on the default device.
      step: Makes a training step; the default is `TrainStep(forward)`. A `tf.Module`'s
        own variables go into the checkpoints.
      steps_per_loop: Number of steps in the graph between two looks by Python.
      seed: Seed of what is random in a step, such as dropout.
      clip_norm: Largest global norm of the gradient; None does not clip.
      loss_scaling: Whether to scale the loss, for gradients in float16.
      jit_compile: Whether XLA compiles the gradient.
      ema: Decay of an exponential moving average of the weights, which evaluation then
        uses in their place; None keeps none.

    Attributes:
      state: What a step is given: model, updates, step, metrics, average, record.
      forward: As given.
      strategy: As given.

    Raises:
      UsageError: An argument is wrong, or the model was made outside the strategy.
    """

    def __init__(
        self,
        model: tf.Module,
        optimizer: Rule | Mapping[str, Update],
        forward: Forward = classification,
        *,
        strategy: tf.distribute.Strategy | None = None,
        step: Step | None = None,
        steps_per_loop: int = 100,
        seed: int = 0,
        clip_norm: float | None = None,
        ema: float | None = None,
        loss_scaling: bool = False,
        jit_compile: bool = False,
    ) -> None:
        if steps_per_loop < 1:
            raise UsageError(f"steps_per_loop is {steps_per_loop}: give 1 or more")
        if step is not None and jit_compile:
            raise UsageError(
                "jit_compile is for the default step: give it to mean_gradients"
            )
        self.forward, self.strategy = forward, strategy or tf.distribute.get_strategy()
        self.steps_per_loop, self.seed = steps_per_loop, seed
        self._step = step or TrainStep(forward, jit_compile)
        self.state = make_state(
            model,
            optimizer,
            self.strategy,
            clip_norm=clip_norm,
            ema=ema,
            loss_scaling=loss_scaling,
            own=step if isinstance(step, tf.Module) else None,
        )
        self._loop: InnerLoop | None = None
        self._spec: Spec = {}
        self._evaluations: dict[object, Evaluation] = {}

    @property
    def model(self) -> tf.Module:
        """The model."""
        return self.state.model

    @property
    def record(self) -> RunRecord:
        """The rows of the history, and the time."""
        return self.state.record

    @property
    def traces(self) -> dict[str, int]:
        """How often the training loop and the evaluation loops were traced."""
        evaluated = sum(evaluation.traces for evaluation in self._evaluations.values())
        return {"train": self._loop.traces if self._loop else 0, "evaluate": evaluated}

    def fit(
        self,
        train: Batches,
        *,
        epochs: int,
        validation: Batches | None = None,
        saver: Saver | None = None,
        actions: Sequence[Action] = (),
        poll: Callable[[], None] = lambda: None,
    ) -> History:
        """Trains to the end of an epoch, from where the saver's newest checkpoint is.

        Args:
          train: Batches to train on.
          epochs: Number of epochs in all: those of earlier calls, and of the run in the
            saver's workdir, count.
          validation: Batches to evaluate after each epoch, as `val_...`.
          saver: Saves, and restores first; without it nothing is written.
          actions: Called in turn after each inner loop, before the run is saved.
          poll: Called between inner loops, of evaluation too. A StopRequested that it
            or an action raises is passed on when the run has been saved.

        Returns:
          Metric name -> one value an epoch, from the first on, as Keras gives it; NaN
          where an epoch has no such value.

        Raises:
          UsageError: `epochs` is below 0, the data are others than before, or the
            saver's `best` is no metric of this run.
          CheckpointError: A checkpoint cannot be written, read, or does not fit.
          DataError: A label is no class.
          NonFiniteError: A loss or gradient was NaN or infinite; nothing of the loop in
            which that came up is saved.
        """
        if epochs < 0:
            raise UsageError(f"epochs is {epochs}: it must be at least 0")
        if saver is not None and not isinstance(saver, Saver):
            raise UsageError(f"saver is {saver!r}: give lenet_tf.Saver(directory)")
        self.start(train)
        names = self.state.metrics.names
        if validation is not None:
            names += [f"val_{name}" for name in self._evaluation(validation).names]
        if saver is not None:
            saver.start(self.state, self.strategy, names)
        here = self.record.begin(train.identity(), self._steps_done())
        held_out = validation.identity() if validation is not None else {}
        here |= {f"the {key} of the validation data": v for key, v in held_out.items()}
        check_alike(self.strategy, {"epochs": epochs, **here})
        calls = in_order(actions, saver)
        outer = OuterLoop(self, train, epochs, validation, calls, poll)
        try:
            outer.run()
        except Enough as enough:
            logging.info("the run ends here: %s", enough)
            if saver is not None:
                saver.save(self._steps_done(), outer.row_is_due())
        except StopRequested as stop:
            if saver is not None:
                path = saver.save(self._steps_done(), outer.row_is_due())
                stop.args = (f"{stop}; saved {path}: the same command again goes on",)
            raise
        except NonFiniteError as error:
            if saver is not None:
                saver.finish()
                raise NonFiniteError(
                    f"{error}; the last good checkpoint: {saver.newest()}"
                ) from error
            raise
        finally:
            close(actions)
        if saver is not None:
            saver.finish()
        return self.record.history()

    def evaluate(
        self, data: Batches, poll: Callable[[], None] = lambda: None
    ) -> dict[str, float | np.ndarray]:
        """Computes the metrics over all examples, each counted once.

        Args:
          data: Batches to evaluate, in any size.
          poll: Called between inner loops; it may raise to stop.

        Returns:
          Metric name -> weighted mean, float; or sum, float64 array, of values that
          have axes; and `examples`, the number of examples of weight above 0. With
          `ema` the averaged weights are evaluated.
        """
        average = self.state.average
        with average.in_place() if average else contextlib.nullcontext():
            return self._evaluation(data).run(data, self.steps_per_loop, poll)

    def start(self, train: Batches) -> None:
        """Makes what training on these batches needs; `fit` does it by itself.

        Args:
          train: Batches of the shapes and dtypes to come.

        Raises:
          UsageError: `forward` does not return what it must, or the model's own state
            would silently be wrong.
        """
        for update in self.state.updates.values():
            update.check_unchanged()
        replicas = self.strategy.num_replicas_in_sync
        spec = self._spec_of(train)
        if self._loop is None or spec != self._spec:
            self._make_loop(spec)
        rows, epoch = train.rows(replicas), train.steps_per_epoch * train.batch_size
        check_state(
            self._seen,
            self.state.model,
            self.state.trained,
            replicas=replicas,
            padding=rows != train.batch_size or epoch != train.examples,
        )

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block, in one inner loop, after `start`.

        Args:
          block: As `Batches.blocks` yields it.

        Returns:
          Number of steps.

        Raises:
          DataError: A label is no class.
          NonFiniteError: A loss or gradient was NaN or infinite.
        """
        if self._loop is None:
            raise UsageError("train_on has no loop yet: call trainer.start(batches)")
        before, steps = self._steps_done(), steps_in(block)
        finite = self._loop.run(block)
        step = self._steps_done()
        if not finite:
            raise non_finite(self.state, before, step)
        if step != before + steps:
            raise RuntimeError(f"{steps} steps led from step {before} to {step}")
        return steps

    def _make_loop(self, spec: Spec) -> None:
        state, step = self.state, self._step
        self._seen, shapes = preview_training(step, state, self.strategy, spec)
        if not state.metrics.totals:
            with self.strategy.scope():
                state.metrics = Accumulators(shapes)

        def on_replica(batch: Batch) -> tf.Tensor | None:
            return step(state, batch)

        self._loop = InnerLoop(self.strategy, on_replica, spec, state.step, self.seed)
        self._spec = spec

    def _steps_done(self) -> int:
        return int(value_of(self.state.step))

    def _evaluation(self, data: Batches) -> Evaluation:
        """Returns the evaluation of data of these shapes; each is traced once."""
        spec = self._spec_of(data)
        key = tuple(sorted((k, tuple(s.shape), s.dtype) for k, s in spec.items()))
        if key not in self._evaluations:
            self._evaluations[key] = Evaluation(
                self.strategy, self.state.model, self.forward, spec, self.seed
            )
        return self._evaluations[key]

    def _spec_of(self, data: Batches) -> Spec:
        if not isinstance(data, Batches):
            raise UsageError(
                f"the data are a {type(data).__name__}: give lenet_tf.Batches(data, "
                "batch_size=64)"
            )
        return data.spec(self.strategy.num_replicas_in_sync)
