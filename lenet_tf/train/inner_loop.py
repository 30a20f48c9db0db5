"""The inner loop: many steps on all replicas in one call of a graph.

    loop = InnerLoop(strategy, step, spec, counter, training_keys(seed))
    loop.run(block)                       # as many steps as the block has batches

No Python runs between two steps, so a step takes only the time of its operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.nn.random import POSITION, SEED
from lenet_tf.parallel.collectives import local_assign_add
from lenet_tf.train.failures import bad_label

Batch = Mapping[str, tf.Tensor]


def steps_in(block: Batch) -> int:
    """Returns the number of batches in a block."""
    return int(block[WEIGHT].shape[0])


# Returns the entry `seed`, int64 [2], and the position of the batch's first row, int32
# scalar, from the loop's counter: what random numbers depend on.
Keys: TypeAlias = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

# Keeps the random numbers of evaluation apart from those of training, whose seeds from
# a config have 32 bits.
_SEED_OFFSET = 2**32


def training_keys(seed: int) -> Keys:
    """Returns the keys of training: each step has its own, whatever was drawn before.

    The counter is the number of steps done.
    """
    return lambda step: (
        tf.stack([tf.constant(seed, tf.int64), step]),
        tf.zeros([], tf.int32),
    )


def evaluation_keys(seed: int) -> Keys:
    """Returns the keys of an evaluation: each example has its own, at every call.

    The counter is the number of examples before the batch.
    """
    pair = [seed + _SEED_OFFSET, 0]
    return lambda first: (tf.constant(pair, tf.int64), tf.cast(first, tf.int32))


def part_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the part of each batch that this worker needs, for `Batches.blocks`.

    Returns:
      Number of the part, from 0, and number of parts, which is that of the workers.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    ids = strategy.experimental_local_results(
        strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(context.replica_id_in_sync_group)
        )
    )
    return int(ids[0]) // len(ids), strategy.num_replicas_in_sync // len(ids)


def spec_of_part(
    spec: Mapping[str, tf.TensorSpec], part: tuple[int, int]
) -> dict[str, tf.TensorSpec]:
    """Returns the shapes and dtypes of a part of a block, given those of the whole."""
    return {
        k: tf.TensorSpec([s.shape[0], s.shape[1] // part[1], *s.shape[2:]], s.dtype)
        for k, s in spec.items()
    }


def dimensions(values: tf.Tensor, first: int) -> list[int | tf.Tensor]:
    """Returns the sizes of the axes from `first` on: numbers, or tensors if unknown."""
    known = values.shape.as_list()[first:]
    if None not in known:
        return known
    sizes = tf.unstack(tf.shape(values))[first:]
    return [sizes[i] if n is None else n for i, n in enumerate(known)]


def share_of(
    block: Batch,
    i: tf.Tensor,
    keys: tuple[tf.Tensor, tf.Tensor],
    part: tuple[int, int],
) -> dict[str, tf.Tensor]:
    """Returns the share that this replica has of a batch; for a replica context.

    Args:
      block: Name -> [steps, rows of this worker's part, ...].
      i: Number of the batch in the block, int32 scalar.
      keys: Entry `seed`, and the position of the whole batch's first row.
      part: This worker's part, from `part_of`.

    Returns:
      Name -> [rows / this worker's replicas, ...], `position` and `seed` among them.
    """
    context = tf.distribute.get_replica_context()
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    local = replicas // part[1]  # replicas of this worker
    size = block[WEIGHT].shape[1] // local
    with tf.device("CPU:0"):  # where the block is: send the share, not the block
        share = {}
        for name, values in block.items():
            shares = tf.reshape(values[i], [local, size, *dimensions(values, 2)])
            share[name] = shares[replica - part[0] * local]
    seed, first = keys
    share[POSITION] = first + replica * size + tf.range(size)
    share[SEED] = seed
    return share


class InnerLoop:
    """Runs a step on each batch of a block, divided among the replicas; traced once.

    Args:
      strategy: Strategy in whose replicas the step runs.
      step: Function of a replica's share of a batch. It returns whether to go on (bool
        scalar, the same on all replicas), or None to go on always.
      spec: Name -> shape [steps (None), rows, ...] and dtype of a whole block. The rows
        are divided evenly among the replicas.
      counter: int64 scalar variable, increased after each step.
      keys: Function of the counter that returns the keys of the random numbers.
      increase: Number that is added to the counter; by default 1.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        step: Callable[[Batch], tf.Tensor | None],
        spec: Mapping[str, tf.TensorSpec],
        counter: tf.Variable,
        keys: Keys,
        increase: tf.Variable | None = None,
    ) -> None:
        self._strategy, self._step = strategy, step
        self._counter, self._keys, self._increase = counter, keys, increase
        self._part = part_of(strategy)
        own = spec_of_part(spec, self._part)
        self._rows = own[WEIGHT].shape[1]
        # AutoGraph would bury the one line of an error in a page of its own.
        self._loop = tf.function(self._steps, input_signature=[own], autograph=False)
        self._compiled: Callable[[Batch], tf.Tensor] | None = None

    def run(self, block: Batch) -> tf.Tensor:
        """Runs the steps of a block.

        Args:
          block: Name -> [steps, rows, ...], with the rows of this worker's part or of
            the whole batch, and any number of steps: the short block at the end of an
            epoch needs no trace of its own.

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
        number, parts = self._part
        if parts > 1 and block[WEIGHT].shape[1] == parts * self._rows:
            own = slice(number * self._rows, (number + 1) * self._rows)
            block = {name: values[:, own] for name, values in block.items()}
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
        keys = self._keys(self._counter.read_value())
        going = self._step(share_of(block, i, keys, self._part))
        one = tf.ones([], tf.int64)
        local_assign_add(
            self._counter, one if self._increase is None else self._increase
        )
        return tf.constant(True) if going is None else going
