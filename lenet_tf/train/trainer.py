"""Trains a model, evaluates it, and owns what a run is made of.

    trainer = Trainer(model, Adam(1e-3), classification, strategy=strategy)
    history = trainer.fit(Batches(arrays, 64, seed=0), epochs=3, validation=held_out)
    trainer.evaluate(test)["accuracy"]

One `fit` uses one training trace and one evaluation trace, ragged batches included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import NonFiniteError, UsageError
from lenet_tf.nn.losses import Forward, classification
from lenet_tf.optim.averaging import Average
from lenet_tf.optim.loss_scale import LossScale
from lenet_tf.optim.optimizers import Optimizer
from lenet_tf.parallel.collectives import value_of
from lenet_tf.signals import StopRequested
from lenet_tf.train.actions import Action
from lenet_tf.train.finite import non_finite
from lenet_tf.train.inner_loop import make_loop
from lenet_tf.train.metrics import Accumulators
from lenet_tf.train.outer_loop import OuterLoop
from lenet_tf.train.saver import Saver
from lenet_tf.train.state import RunRecord
from lenet_tf.train.step import EvalStep, TrainStep, value_shapes

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
      seed: of what is random in a step, such as dropout.
      clip_norm: the most the gradient's global norm may be.
      loss_scaling: whether to scale the loss, for gradients in float16.
      jit_compile: whether XLA compiles the gradient.
      ema: decay of an exponential moving average of the weights, which evaluation then
        takes in their place; None keeps none.

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
        seed: int = 0,
        clip_norm: float | None = None,
        ema: float | None = None,
        loss_scaling: bool = False,
        jit_compile: bool = False,
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise UsageError(f"clip_norm is {clip_norm}: it must be above 0")
        if steps_per_loop < 1:
            raise UsageError(f"steps_per_loop is {steps_per_loop}: at least 1 is due")
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.strategy = strategy or tf.distribute.get_strategy()
        self.steps_per_loop = steps_per_loop
        self.seed, self.clip_norm = seed, clip_norm
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
            self.average = None if ema is None else Average(variables, ema)
            self.loss_scale = LossScale() if loss_scaling else None
        self.jit_compile = jit_compile
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
        saver: Saver | None = None,
        actions: Sequence[Action] = (),
        poll: Callable[[], None] = lambda: None,
    ) -> History:
        """Trains to the end of an epoch, from where the saver's newest checkpoint is.

        Args:
          train: batches to train on.
          epochs: how many, counted from the first run in the saver's workdir.
          validation: evaluated after each epoch, as `val_...`.
          saver: saves, and restores first; without it nothing is written.
          actions: called in turn after each inner loop, and after saving.
          poll: called between inner loops, of evaluation too. A StopRequested that it
            raises is passed on when the run has been saved.

        Returns:
          Metric name -> one value an epoch, from the first on, as Keras gives it.

        Raises:
          UsageError: `epochs` below 0, or the saver's `best` is no metric of this run.
          CheckpointError: a checkpoint cannot be written, read, or does not fit.
          NonFiniteError: a loss or gradient was NaN or infinite; nothing of the loop in
            which that came up is saved.
        """
        if epochs < 0:
            raise UsageError(f"epochs is {epochs}: it must be at least 0")
        self.start(train)
        if saver is not None:
            saver.start(self.parts(), self.strategy, validation is not None)
            actions = [saver, *actions]
        outer = OuterLoop(self, train, epochs, validation, actions, poll)
        try:
            outer.run()
        except StopRequested as stop:
            if saver is not None:
                path = saver.save(int(value_of(self.step)), outer.row_is_due())
                stop.args = (f"{stop}; saved {path}: the same command again goes on",)
            raise
        except NonFiniteError as error:
            if saver is not None:
                saver.finish()
                raise NonFiniteError(
                    f"{error}; the last good checkpoint: {saver.newest()}"
                ) from error
            raise
        if saver is not None:
            saver.finish()
        names = [key for row in self.record.rows[-1:] for key in row]
        return {
            name: [row[name] for row in self.record.rows]
            for name in names
            if name not in ("epoch", "step")
        }

    def evaluate(
        self, data: Batches, poll: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Computes the mean of every value over a dataset, each example counted once.

        Args:
          data: batches; of one shape and dtype they share one trace.
          poll: called between inner loops; what it raises is passed on.

        Returns:
          Value name -> mean, or float64 sum [...] of a value [B, ...]; and `examples`,
          how many were counted.
        """
        replicas = self.strategy.num_replicas_in_sync
        loop, metrics = self._eval_loop(data.spec(replicas))
        metrics.reset()
        average = self.average
        with average.in_place() if average else contextlib.nullcontext():
            for block in data.blocks(replicas, self.steps_per_loop, epochs=1):
                poll()
                loop(block)
        examples = int(value_of(metrics.examples))
        return {**metrics.result(), **metrics.sums(), "examples": examples}

    def parts(self) -> dict[str, Any]:
        """Returns name -> what the run is made of, as it goes into a checkpoint."""
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "average": self.average,
            "loss_scale": self.loss_scale,
            "metrics": self.metrics,
            "step": self.step,
            "record": self.record,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def traces(self) -> dict[str, int]:
        """How often the training loop and the evaluation loops were traced."""
        train, evaluation = self._train_loop, [loop for loop, _ in self._eval.values()]
        count = [f.experimental_get_tracing_count() for f in evaluation]
        return {
            "train": train.experimental_get_tracing_count() if train else 0,
            "evaluate": sum(count),
        }

    def start(self, train: Batches) -> None:
        """Makes what training on these batches needs; `fit` does it by itself.

        Args:
          train: of the shapes and dtypes to come.

        Raises:
          UsageError: `forward` does not return what it must.
        """
        spec = train.spec(self.strategy.num_replicas_in_sync)
        if self.metrics is None:
            shapes = value_shapes(self.forward, self.model, spec)
            with self.strategy.scope():
                self.metrics = Accumulators(shapes)
        if self._train_loop is None or spec != self._train_spec:
            step = TrainStep(
                self.model,
                self.optimizer,
                self.forward,
                self.metrics,
                self.step,
                self.seed,
                self.clip_norm,
                self.average,
                self.loss_scale,
                self.jit_compile,
            )
            self._train_loop = make_loop(self.strategy, step, spec)
            self._train_spec = spec

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block, in one inner loop, after `start`.

        Args:
          block: as `Batches.blocks` yields it.

        Returns:
          How many steps that were.

        Raises:
          NonFiniteError: a loss or gradient was NaN or infinite.
        """
        before, steps = int(value_of(self.step)), int(block["weight"].shape[0])
        finite, step = self._train_loop(block), int(value_of(self.step))
        if not finite:
            raise non_finite(self.model.trainable_variables, before, step)
        if step != before + steps:
            raise RuntimeError(f"{steps} steps led from step {before} to {step}")
        return steps

    def _eval_loop(self, spec: dict[str, tf.TensorSpec]) -> tuple[Any, Accumulators]:
        key = tuple(sorted((k, tuple(s.shape), s.dtype) for k, s in spec.items()))
        if key not in self._eval:
            shapes = value_shapes(self.forward, self.model, spec)
            with self.strategy.scope():
                metrics = Accumulators(shapes)
            step = EvalStep(self.model, self.forward, metrics)
            self._eval[key] = make_loop(self.strategy, step, spec), metrics
        return self._eval[key]
