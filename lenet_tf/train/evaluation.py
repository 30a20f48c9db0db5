"""Evaluation: the metrics over all examples, each counted once.

evaluation = Evaluation(strategy, model, forward, batches.spec(replicas), seed=0)
evaluation.run(batches, steps_per_loop=100, poll=lambda: None)["accuracy"]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import Batches
from lenet_tf.nn.losses import Forward
from lenet_tf.parallel.collectives import value_of
from lenet_tf.parallel.workers import same_steps
from lenet_tf.train.inner_loop import InnerLoop, evaluation_keys, part_of, steps_in
from lenet_tf.train.metrics import EXAMPLES, Accumulators
from lenet_tf.train.outputs import Spec, preview_evaluation
from lenet_tf.train.step import EvalStep


class Evaluation:
    """Evaluates data of the same shapes and dtypes; traced once.

    Args:
      strategy: Strategy in whose replicas the evaluation runs.
      model: Model that is passed to `forward`.
      forward: Function that returns the per-example values of a batch.
      spec: Shapes and dtypes of a block of the data, from `Batches.spec`.
      seed: Seed of the random numbers in `forward`. An example's numbers depend on its
        place in the data, so they are the same at every call and for any batch size.

    Attributes:
      metrics: Accumulators of the metrics.

    Raises:
      UsageError: `forward` does not return a dict of per-example tensors.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: tf.Module,
        forward: Forward,
        spec: Spec,
        seed: int,
    ) -> None:
        shapes = preview_evaluation(forward, model, strategy, spec)
        with strategy.scope():
            self.metrics = Accumulators(shapes)
            self._done, self._batch_size = (
                tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(2)
            )
        self._loop = InnerLoop(
            strategy,
            EvalStep(model, forward, self.metrics),
            spec,
            counter=self._done,
            keys=evaluation_keys(seed),
            increase=self._batch_size,
        )
        self._strategy = strategy

    @property
    def traces(self) -> int:
        """Number of times that the loop was traced."""
        return self._loop.traces

    def run(
        self, data: Batches, steps_per_loop: int, poll: Callable[[], None]
    ) -> dict[str, float | np.ndarray]:
        """Evaluates all batches once; see `Trainer.evaluate`."""
        self.metrics.reset()
        self._done.assign(0)
        self._batch_size.assign(data.batch_size)
        replicas = self._strategy.num_replicas_in_sync
        part = part_of(self._strategy)
        blocks = data.blocks(replicas, steps_per_loop, epochs=1, part=part)
        for block in same_steps(self._strategy, blocks, steps_in):
            poll()
            self._loop.run(block)
        examples = int(value_of(self.metrics.examples))
        return {**self.metrics.result(), **self.metrics.sums(), EXAMPLES: examples}
