"""The inner loop: many steps on all replicas in one call of a graph.

    loop = InnerLoop(strategy, step, spec, counter, seed)
    loop.run(block)                       # as many steps as the block has batches

No Python runs between two steps, so a step takes only the time of its operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.nn.random import POSITION, SEED
from lenet_tf.parallel.collectives import local_assign_add
from lenet_tf.train.failures import bad_label

Batch = Mapping[str, tf.Tensor]


def steps_in(block: Batch) -> int:
    """Returns the number of batches in a block."""
    return int(block[WEIGHT].shape[0])


def share_of(
    block: Batch, i: tf.Tensor, seed: int, step: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the share that this replica has of a batch; for a replica context.

    Args:
      block: Name -> [steps, rows, ...].
      i: Number of the batch in the block, int32 scalar.
      seed: First number of the entry `seed`.
      step: Second number of it, int64 scalar.

    Returns:
      Name -> [rows / replicas, ...], `position` and `seed` among them.
    """
    context = tf.distribute.get_replica_context()
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    size = block[WEIGHT].shape[1] // replicas
    with tf.device("CPU:0"):  # where the block is: send the share, not the block
        share = {}
        for name, values in block.items():
            shares = tf.reshape(values[i], [replicas, size, *values.shape[2:]])
            share[name] = shares[replica]
    share[POSITION] = replica * size + tf.range(size)
    share[SEED] = tf.stack([tf.constant(seed, tf.int64), step])
    return share


class InnerLoop:
    """Runs a step on each batch of a block, divided among the replicas; traced once.

    Args:
      strategy: Strategy in whose replicas the step runs.
      step: Function of a replica's share of a batch. It returns whether to go on (bool
        scalar, the same on all replicas), or None to go on always.
      spec: Name -> shape [steps (None), rows, ...] and dtype of a block. The rows are
        divided evenly among the replicas.
      counter: Number of steps done, int64 scalar; 1 is added after each step.
      seed: First number of each batch's `seed` entry; the second is the counter.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        step: Callable[[Batch], tf.Tensor | None],
        spec: Mapping[str, tf.TensorSpec],
        counter: tf.Variable,
        seed: int,
    ) -> None:
        self._strategy, self._step = strategy, step
        self._counter, self._seed = counter, seed
        # AutoGraph would bury the one line of an error in a page of its own.
        self._loop = tf.function(
            self._steps, input_signature=[dict(spec)], autograph=False
        )
        self._compiled: Callable[[Batch], tf.Tensor] | None = None

    def run(self, block: Batch) -> tf.Tensor:
        """Runs the steps of a block.

        Args:
          block: Name -> [steps, rows, ...], with any number of steps: the short block
            at the end of an epoch needs no trace of its own.

        Returns:
          Whether to go on, bool scalar. False if a step said so; the steps of the block
          after it are not run.

        Raises:
          DataError: A label is not in [0, number of classes).
        """
        if self._compiled is None:
            # TensorFlow counts the traces of all trainers together: calling the
            # tf.function itself would warn of retracing when there are several.
            self._compiled = self._loop.get_concrete_function()
        try:
            return self._compiled(block)
        except tf.errors.InvalidArgumentError as error:
            label = bad_label(error)
            if label is None:
                raise
            raise label from None

    @property
    def traces(self) -> int:
        """Number of times that the loop was traced."""
        return self._loop.experimental_get_tracing_count()

    def _steps(self, block: Batch) -> tf.Tensor:
        steps = tf.shape(block[WEIGHT])[0]

        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            going = self._strategy.run(self._replica_step, args=(block, i))
            return i + 1, self._strategy.experimental_local_results(going)[0]

        start = tf.constant(0), tf.constant(True)
        return tf.while_loop(lambda i, go: go & (i < steps), body, start)[1]

    def _replica_step(self, block: Batch, i: tf.Tensor) -> tf.Tensor:
        going = self._step(share_of(block, i, self._seed, self._counter.read_value()))
        local_assign_add(self._counter, tf.ones([], tf.int64))
        return tf.constant(True) if going is None else going
