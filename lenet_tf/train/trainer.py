"""Trains a model, evaluates it, and holds the state of the run.

    trainer = Trainer(model, Adam(1e-3), forward, strategy=strategy)
    history = trainer.fit(Batches(arrays, 64, seed=0), epochs=3, validation=held_out)
    trainer.evaluate(test)["accuracy"]

One `fit` traces training once and evaluation once, also for short last batches.
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
from lenet_tf.signals import StopRequested, check_signals
from lenet_tf.train.actions import Action, Enough, close, in_order
from lenet_tf.train.evaluation import Evaluation
from lenet_tf.train.failures import non_finite
from lenet_tf.train.inner_loop import InnerLoop, steps_in
from lenet_tf.train.model_state import check_state
from lenet_tf.train.outer_loop import OuterLoop
from lenet_tf.train.outputs import Spec, preview_training
from lenet_tf.train.preview import Preview
from lenet_tf.train.saver import Saver
from lenet_tf.train.state import make_state
from lenet_tf.train.step import Batch, Step, TrainStep
from lenet_tf.train.update import Rule, Update

History = dict[str, list[float]]


class Trainer:
    """Trains and evaluates a model, and holds the state of the run.

    Args:
      model: Model, made in `strategy.scope()`.
      optimizer: Optimizer of all the model's trainable variables; or name -> `Update`,
        for several optimizers or losses, or to train some of the variables only. Its
        slots are made here, before any step or restore.
      forward: Function `forward(model, batch, training)` that returns a dict of values
        [B, ...], the loss [B] among them. Scalars are averaged over the examples with
        the batch's `weight`, arrays are summed with it.
      strategy: Strategy to train with; the default is the current one, which outside of
        any scope is one replica on the default device.
      step: Function that makes a training step; the default is `TrainStep(forward)`. If
        it is a `tf.Module`, checkpoints hold its variables too.
      steps_per_loop: Largest number of steps in an inner loop, which runs in the graph.
      seed: Seed of the random numbers in a step, such as those of dropout.
      clip_norm: Largest global norm of the gradient; None does not clip.
      loss_scaling: Whether to scale the loss, for gradients in float16.
      jit_compile: Whether XLA compiles the forward pass and its gradient.
      ema: Decay of an exponential moving average of the weights, which evaluation then
        uses in their place; None keeps none.

    Attributes:
      state: State of the run: model, updates, step, metrics, average, record.
      forward: As given.
      strategy: As given, or the default.

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
        self.model, self.record = self.state.model, self.state.record
        self._loop: InnerLoop | None = None
        self._seen: Preview | None = None
        self._spec: Spec = {}
        self._evaluations: dict[object, Evaluation] = {}

    @property
    def traces(self) -> dict[str, int]:
        """Number of traces of the training loop and of the evaluation loops."""
        evaluated = sum(each.traces for each in self._evaluations.values())
        return {"train": self._loop.traces if self._loop else 0, "evaluate": evaluated}

    def fit(
        self,
        train: Batches,
        *,
        epochs: int,
        validation: Batches | None = None,
        saver: Saver | None = None,
        actions: Sequence[Action] = (),
        poll: Callable[[], None] = check_signals,
        data_changed: bool = False,
    ) -> History:
        """Trains until `epochs` epochs are done, from the saver's newest checkpoint on.

        Args:
          train: Batches to train on.
          epochs: Total number of epochs, including those of earlier calls and those of
            the run in the saver's directory.
          validation: Batches to evaluate after each epoch, for the metrics `val_...`.
          saver: Saver that restores and saves the run; without it nothing is written.
          actions: Functions to call in turn after each inner loop, before saving.
          poll: Function to call between inner loops, also those of an evaluation; by
            default it looks at a `StopSignals` that is in use. If it or an action
            raises StopRequested, the run is saved before that is raised.
          data_changed: Whether the examples may be others than in the steps so far.

        Returns:
          Metric name -> one value per epoch, from the first epoch on; NaN where an
          epoch lacks the metric.

        Raises:
          UsageError: `epochs` is below 0, the data are not those of the steps so far,
            or the saver's `best` is not a metric of this run.
          CheckpointError: A checkpoint cannot be written or read, or does not fit.
          DataError: A label is not in [0, number of classes).
          NonFiniteError: A loss or gradient was NaN or infinite; nothing of the inner
            loop in which that happened is saved.
        """
        if epochs < 0:
            raise UsageError(f"epochs is {epochs}: give 0 or more")
        if saver is not None and not isinstance(saver, Saver):
            raise UsageError(f"saver is {saver!r}: give lenet_tf.Saver(directory)")
        self.start(train)
        names = self.state.metrics.names
        if validation is not None:
            names += [f"val_{name}" for name in self._evaluation(validation).names]
        if saver is not None:
            saver.start(self.state, self.strategy, names)
        here = self.record.begin(train.identity(), self._steps_done(), data_changed)
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
          data: Batches to evaluate, of any batch size.
          poll: Function to call between inner loops; it may raise to stop.

        Returns:
          Metric name -> weighted mean, a float, of scalars; weighted sum, a float64
          array, of arrays; and `examples`, the number of examples with a weight above
          0. With `ema`, the averaged weights are evaluated.
        """
        average = self.state.average
        with average.in_place() if average else contextlib.nullcontext():
            return self._evaluation(data).run(data, self.steps_per_loop, poll)

    def start(self, train: Batches) -> None:
        """Checks and prepares training on these batches; `fit` calls it.

        Args:
          train: Batches with the shapes and dtypes of the training data.

        Raises:
          UsageError: `forward` or the step does not return what it must, or the model's
            own state would silently be wrong.
        """
        for update in self.state.updates.values():
            update.check_unchanged()
        replicas = self.strategy.num_replicas_in_sync
        spec = self._spec_of(train)
        if self._loop is None or spec != self._spec:
            self._make_loop(spec)
        assert self._seen is not None
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
          block: Block of batches, from `Batches.blocks`.

        Returns:
          Number of steps.

        Raises:
          DataError: A label is not in [0, number of classes).
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
        with self.strategy.scope():
            state.make_metrics(shapes)

        def on_replica(batch: Batch) -> tf.Tensor | None:
            return step(state, batch)

        self._loop = InnerLoop(self.strategy, on_replica, spec, state.step, self.seed)
        self._spec = spec

    def _steps_done(self) -> int:
        return int(value_of(self.state.step))

    def _evaluation(self, data: Batches) -> Evaluation:
        """Returns the evaluation for data of these shapes and dtypes, traced once."""
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
