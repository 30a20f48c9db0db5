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
from lenet_tf.train.inner_loop import InnerLoop, steps_in
from lenet_tf.train.metrics import EXAMPLES, Accumulators
from lenet_tf.train.outputs import Spec, preview_evaluation
from lenet_tf.train.step import EvalStep

# Keeps the random numbers of evaluation apart from those of training, whose seeds from
# a config have 32 bits. Every evaluation draws the same numbers.
SEED_OFFSET = 2**32


class Evaluation:
    """Evaluates data of the same shapes and dtypes; traced once.

    Args:
      strategy: Strategy in whose replicas the evaluation runs.
      model: Model that is passed to `forward`.
      forward: Function that returns the per-example values of a batch.
      spec: Shapes and dtypes of a block of the data, from `Batches.spec`.
      seed: Seed of the random numbers in `forward`.

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
            self._batches = tf.Variable(0, dtype=tf.int64, trainable=False)
        step = EvalStep(model, forward, self.metrics)
        self._loop = InnerLoop(strategy, step, spec, self._batches, seed + SEED_OFFSET)
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
        self._batches.assign(0)
        replicas = self._strategy.num_replicas_in_sync
        blocks = data.blocks(replicas, steps_per_loop, epochs=1)
        for block in same_steps(self._strategy, blocks, steps_in):
            poll()
            self._loop.run(block)
        examples = int(value_of(self.metrics.examples))
        return {**self.metrics.result(), **self.metrics.sums(), EXAMPLES: examples}
