"""The training loop of a run, for batches of the same shapes and dtypes.

training = Training(strategy, state, step, batches.spec(shares), shares=2, seed=0)
training.check(batches)
training.run(block)                          # the number of steps made
"""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf
from absl import logging

from lenet_tf.checkpoint.compare import values_by_key
from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import value_of
from lenet_tf.train.failures import non_finite
from lenet_tf.train.inner_loop import InnerLoop, steps_in, training_keys
from lenet_tf.train.model_state import check_state
from lenet_tf.train.outputs import Spec, preview_training
from lenet_tf.train.preview import Preview
from lenet_tf.train.state import TrainState
from lenet_tf.train.step import Batch, Step

_MOST_COMPARED = 4096  # numbers: larger variables take too long to look at


class Training:
    """Trains on blocks of batches; traced once.

    Args:
      strategy: Strategy in whose replicas the step runs.
      state: State that the step is called with; its accumulators are made here.
      step: Training step.
      spec: Shapes and dtypes of a block, from `Batches.spec`.
      shares: Number of parts that a batch is divided into: replicas * micro-batches.
      seed: Seed of the random numbers in a step.

    Raises:
      UsageError: The step or its forward function does not return what it must.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        state: TrainState,
        step: Step,
        spec: Spec,
        *,
        shares: int,
        seed: int,
    ) -> None:
        self._state, self._shares, self.spec = state, shares, spec
        self._replicas = strategy.num_replicas_in_sync
        self._seen, shapes = preview_training(step, state, strategy, spec)
        self._outside = _unsaved(self._seen, state)
        draws = self._seen.stateful_draws()
        if draws:
            logging.warning(
                "a step draws random numbers by %s: they differ between replicas and "
                "after a resume; lenet_tf.dropout and lenet_tf.nn.uniform always give "
                "the same ones",
                ", ".join(draws),
            )
        with strategy.scope():
            state.make_metrics(shapes)

        def on_replica(batch: Batch) -> tf.Tensor:
            return step(state, batch)

        self._loop = InnerLoop(
            strategy, on_replica, spec, state.step, training_keys(seed)
        )

    @property
    def traces(self) -> int:
        """Number of times that the loop was traced."""
        return self._loop.traces

    def check(self, train: Batches) -> None:
        """Raises UsageError if the model's own state would silently become wrong."""
        for update in self._state.updates.values():
            update.check_unchanged()
        rows, epoch = train.rows(self._shares), train.steps_per_epoch * train.batch_size
        check_state(
            self._seen,
            self._state.model,
            self._state.trained,
            replicas=self._replicas,
            padding=rows != train.batch_size or epoch != train.examples,
        )

    def run(self, block: Block) -> int:
        """Trains on the batches of a block; see `Trainer.train_on`."""
        for variable, value in self._outside:
            if not np.array_equal(variable.numpy(), value):
                raise UsageError(
                    f"{_name(variable)} is read in a step and was changed, "
                    "but is not in the checkpoints: make it an attribute of the model"
                )
        before, steps = int(value_of(self._state.step)), steps_in(block)
        finite = self._loop.run(block)
        step = int(value_of(self._state.step))
        if not finite:
            raise non_finite(self._state, before, step)
        if step != before + steps:
            raise RuntimeError(f"{steps} steps led from step {before} to {step}")
        return steps


def _unsaved(seen: Preview, state: TrainState) -> list[tuple[tf.Variable, np.ndarray]]:
    """Returns the small variables of a step that are in no checkpoint, with values.

    They must stay constant: a resumed run would not have their new values.
    """
    parts = tf.train.Checkpoint(**state.parts())
    saved = {
        id(copy)
        for variable in values_by_key(parts).values()
        for copy in (variable, *getattr(variable, "values", ()))
    }
    return [
        (variable, variable.numpy())
        for variable in seen.variables
        if id(variable) not in saved
        and (variable.shape.num_elements() or 0) <= _MOST_COMPARED
    ]


def _name(copy: tf.Variable) -> str:
    """Returns the name of a variable, given it or its copy on a replica."""
    return re.sub(r"(/replica_\d+)?:0$", "", copy.name)
