"""Evaluation and prediction with the model of a trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import Batches
from lenet_tf.nn.losses import Forward
from lenet_tf.train.evaluation import Evaluation
from lenet_tf.train.metrics import Accumulators
from lenet_tf.train.outputs import Spec
from lenet_tf.train.per_spec import PerSpec, spec_of
from lenet_tf.train.prediction import Function, Prediction
from lenet_tf.train.state import TrainState
from lenet_tf.train.step import Batch


class Inference:
    """Evaluates and predicts, with averaged weights if the state has them.

    Args:
      strategy: Strategy in whose replicas the model runs.
      state: State of the run.
      forward: Function that returns the per-example values of a batch.
      seed: Seed of the random numbers in `forward`.
      steps_per_loop: Largest number of batches in an inner loop.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        state: TrainState,
        forward: Forward,
        *,
        seed: int,
        steps_per_loop: int,
    ) -> None:
        self._strategy, self._state, self._forward = strategy, state, forward
        self._seed, self._steps_per_loop = seed, steps_per_loop
        self._evaluations = PerSpec(self._make_evaluation)
        # Only for the function that was used last: many functions would fill memory.
        self._function: Function = self._values
        self._predictions = PerSpec(self._make_prediction)

    @property
    def traces(self) -> int:
        """Number of traces of the evaluation loops."""
        return sum(each.traces for each in self._evaluations.all())

    def metrics(self, data: Batches) -> Accumulators:
        """Returns the accumulators of an evaluation, which is traced if need be."""
        return self._evaluations(self._spec(data)).metrics

    def evaluate(
        self, data: Batches, poll: Callable[[], None]
    ) -> dict[str, float | np.ndarray]:
        """Returns the metrics over all examples; see `Trainer.evaluate`."""
        with self._weights():
            evaluation = self._evaluations(self._spec(data))
            return evaluation.run(data, self._steps_per_loop, poll)

    def predict(
        self, data: Batches, function: Function | None, poll: Callable[[], None]
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Returns the function's values for all examples; see `Trainer.predict`."""
        function = function or self._values
        if function != self._function:
            self._function = function
            self._predictions = PerSpec(self._make_prediction)
        with self._weights():
            prediction = self._predictions(self._spec(data))
            return prediction.run(data, self._steps_per_loop, poll)

    def _weights(self) -> contextlib.AbstractContextManager[None]:
        average = self._state.average
        return average.in_place() if average else contextlib.nullcontext()

    def _values(self, model: tf.Module, batch: Batch) -> Mapping[str, tf.Tensor]:
        return self._forward(model, batch, False)

    def _make_evaluation(self, spec: Spec) -> Evaluation:
        model = self._state.model
        return Evaluation(self._strategy, model, self._forward, spec, self._seed)

    def _make_prediction(self, spec: Spec) -> Prediction:
        model = self._state.model
        return Prediction(self._strategy, model, self._function, spec, self._seed)

    def _spec(self, data: Batches) -> Spec:
        return spec_of(data, self._strategy.num_replicas_in_sync)
