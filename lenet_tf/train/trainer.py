"""Trains a model, evaluates it, and holds the state of the run.

    trainer = Trainer(model, Adam(1e-3), forward, strategy=strategy)
    history = trainer.fit(Batches(arrays, 64, seed=0), epochs=3, validation=held_out)
    trainer.evaluate(test)["accuracy"]

One `fit` traces training once and evaluation once, also for short last batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import UsageError
from lenet_tf.nn.losses import Forward, classification
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import check_alike, is_chief
from lenet_tf.signals import check_signals, interrupt_deferred
from lenet_tf.train.actions import Action, begin
from lenet_tf.train.actions.progress import with_progress
from lenet_tf.train.derived import Derived, Score
from lenet_tf.train.ending import saved_at_the_end
from lenet_tf.train.inference import Inference
from lenet_tf.train.outer_loop import OuterLoop
from lenet_tf.train.per_spec import spec_of
from lenet_tf.train.prediction import Function
from lenet_tf.train.rows import Rows
from lenet_tf.train.saver import Saver, check_saver
from lenet_tf.train.state import make_state
from lenet_tf.train.step import Step, TrainStep
from lenet_tf.train.training import Training
from lenet_tf.train.update import Rule, Update
from lenet_tf.train.validation import names_in_row, validation_sets

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
      micro_batches: Number of parts in which each replica computes the gradient of its
        share of a batch, one after another, to save memory. The step stays the same.
      watch: Names of more metrics of training: "gradient_norm", "update_norm" and
        "learning_rate", averaged over the steps (see `TrainStep`).
      derived: Name -> function of the metrics that returns a number, such as the F1 of
        a confusion matrix; see `Derived`.

    Attributes:
      state: State of the run: model, updates, step, metrics, average, record.
      forward: As given.
      strategy: As given, or the default.
      shares: Number of parts that a batch is divided into: replicas * micro-batches.

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
        micro_batches: int = 1,
        watch: Sequence[str] = (),
        derived: Mapping[str, Score] | None = None,
    ) -> None:
        if steps_per_loop < 1:
            raise UsageError(f"steps_per_loop is {steps_per_loop}: give 1 or more")
        if micro_batches < 1:
            raise UsageError(f"micro_batches is {micro_batches}: give 1 or more")
        if step is not None and (jit_compile or watch):
            raise UsageError(
                "jit_compile and watch are for the default step: let your own step "
                "give jit_compile to mean_gradients, and accumulate what it watches"
            )
        self.forward, self.strategy = forward, strategy or tf.distribute.get_strategy()
        self.steps_per_loop, self.seed = steps_per_loop, seed
        self.shares = self.strategy.num_replicas_in_sync * micro_batches
        self._step = step or TrainStep(
            forward, jit_compile, micro_batches=micro_batches, watch=watch
        )
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
        self._derived = Derived(derived or {})
        self._training: Training | None = None
        self._inference = Inference(
            self.strategy, self.state, forward, seed=seed, steps_per_loop=steps_per_loop
        )

    @property
    def traces(self) -> dict[str, int]:
        """Number of traces of the training loop and of the evaluation loops."""
        trained = self._training.traces if self._training else 0
        return {"train": trained, "evaluate": self._inference.traces}

    def fit(
        self,
        train: Batches,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation: Batches | Mapping[str, Batches] | None = None,
        row_steps: int | None = None,
        row_examples: int | None = None,
        saver: Saver | None = None,
        actions: Sequence[Action] = (),
        poll: Callable[[], None] = check_signals,
        data_changed: bool = False,
        progress: bool | None = None,
    ) -> History:
        """Trains to the end of the run, from the saver's newest checkpoint on.

        Args:
          train: Batches to train on.
          epochs: Total number of epochs, including those of earlier calls and those of
            the run in the saver's directory.
          steps: Total number of steps, counted in the same way. If `epochs` is given
            too, the run ends at what comes first.
          validation: Batches to evaluate for each row of the history, for the metrics
            `val_...`; or name -> batches, for the metrics `val_<name>_...`.
          row_steps: Number of steps between two rows of the history; by default there
            is one at the end of each epoch. The last step of the run has one, too.
          row_examples: Number of examples between two rows, in place of `row_steps`.
          saver: Saver that restores and saves the run; without it nothing is written.
          actions: Functions to call in turn after each inner loop, before saving.
          poll: Function to call between inner loops, also those of an evaluation; by
            default it looks at a `StopSignals` that is in use. If it or an action
            raises StopRequested, the run is saved before that is raised.
          data_changed: Whether the examples may be others than in the steps so far.
          progress: Whether to show a bar and a line for each row; None shows them in a
            terminal and in a notebook. A `Progress` among the actions replaces them.

        Returns:
          Metric name -> one value per row, from the first one on; NaN where a row
          lacks the metric.

        Raises:
          UsageError: A number is too small or missing, the data are not those of the
            steps so far, or the saver's `best` is not a metric of this run.
          CheckpointError: A checkpoint cannot be written or read, or does not fit.
          DataError: A label is not in [0, number of classes).
          NonFiniteError: A loss or gradient was NaN or infinite; nothing of the inner
            loop in which that happened is saved.
          KeyboardInterrupt: Ctrl-C was pressed; the run was saved after the inner loop.
            After a notebook's stop button, `fit` saves the run too, and returns.
        """
        check_saver(saver, actions)
        actions = with_progress(actions, progress, is_chief(self.strategy))
        self.start(train)
        rows = Rows(train, epochs, steps, row_steps, row_examples)
        held_out = validation_sets(validation)
        evaluated = {p: self._inference.metrics(d) for p, d in held_out.items()}
        names = names_in_row(self._derived, self.state.metrics, evaluated)
        if saver is not None:
            saver.start(self.state, self.strategy, names, next(iter(held_out), "val"))
        begin(actions, self.state, names)
        step = int(value_of(self.state.step))
        identity = {**train.identity(), "seed of the trainer": self.seed}
        here = self.record.begin(identity, step, data_changed)
        for prefix, data in held_out.items():
            here |= {f"the {k} of {prefix}": v for k, v in data.identity().items()}
        ends = {"epochs": epochs, "steps": steps}
        every = {"row_steps": row_steps, "row_examples": row_examples}
        check_alike(self.strategy, {**ends, **every, **here})
        with interrupt_deferred(poll) as poll:
            outer = OuterLoop(self, train, rows, held_out, actions, saver, poll)
            with saved_at_the_end(outer, saver, actions):
                outer.run()
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
          array, of arrays; what is derived from them; and `examples`, the number of
          examples with a weight above 0. With `ema`, the averaged weights are
          evaluated.
        """
        values = self._inference.evaluate(data, poll)
        return {**values, **self._derived.of(values)}

    def predict(
        self,
        data: Batches,
        function: Function | None = None,
        poll: Callable[[], None] = lambda: None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Computes a function of the model for every example.

        Args:
          data: Batches that are not shuffled, of any batch size.
          function: Function `function(model, batch)` that returns a tensor [B, ...] of
            any dtype, or a dict of such; by default the values of `forward`. It is
            traced again for each other function object.
          poll: Function to call between inner loops; it may raise to stop.

        Returns:
          NumPy array [N, ...], or a dict of such. Row i belongs to example i, also if
          the example has weight 0. With `ema`, the averaged weights are used.

        Raises:
          UsageError: The batches are shuffled, or the function does not return one row
            per example.
        """
        return self._inference.predict(data, function, poll)

    def training_metrics(self) -> dict[str, float]:
        """Returns metric name -> value over the examples since the last row.

        Means of scalars, and what is derived from them and from the sums of arrays.
        """
        metrics = self.state.metrics
        means = metrics.result()
        return {**means, **self._derived.of({**means, **metrics.sums()})}

    def start(self, train: Batches) -> None:
        """Checks and prepares training on these batches; `fit` calls it.

        Args:
          train: Batches with the shapes and dtypes of the training data.

        Raises:
          UsageError: `forward` or the step does not return what it must, or the model's
            own state would silently be wrong.
        """
        spec = spec_of(train, self.shares)
        if self._training is None or spec != self._training.spec:
            sizes = {"shares": self.shares, "seed": self.seed}
            self._training = Training(
                self.strategy, self.state, self._step, spec, **sizes
            )
        self._training.check(train)

    def train_on(self, block: Block) -> int:
        """Trains on the batches of a block, in one inner loop, after `start`.

        Args:
          block: Block of batches, from `Batches.blocks(trainer.shares, ...)`: of whole
            batches, or with several workers of this worker's part of them.

        Returns:
          Number of steps.

        Raises:
          DataError: A label is not in [0, number of classes).
          NonFiniteError: A loss or gradient was NaN or infinite.
        """
        if self._training is None:
            raise UsageError("train_on has no loop yet: call trainer.start(batches)")
        return self._training.run(block)
