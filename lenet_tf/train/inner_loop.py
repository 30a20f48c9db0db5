"""The inner loop: many steps in the graph, on all replicas, at one call.

run = make_loop(strategy, train_step, batches.spec(replicas))
run(block)                            # as many steps as the block has batches
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.nn.random import POSITION

Batch = Mapping[str, tf.Tensor]


def make_loop(
    strategy: tf.distribute.Strategy,
    step: Callable[[Batch], tf.Tensor],
    spec: Mapping[str, tf.TensorSpec],
) -> Any:
    """Compiles the inner loop: every batch of a block through every replica.

    Args:
      strategy: runs the step.
      step: takes a replica's share of a batch, a dict of [B, ...] with `position`, its
        rows' places in the global batch; returns whether to go on, bool scalar, alike
        on all replicas.
      spec: name -> shape [steps (None), rows, ...] of a block; rows are divided evenly.

    Returns:
      A `tf.function` that takes a block, and returns what the last step has returned.
      The number of steps is not part of its signature: one trace serves the short block
      at the end of an epoch too.
    """
    replicas = strategy.num_replicas_in_sync
    size = spec[WEIGHT].shape[1] // replicas

    def replica_step(block: Batch, i: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group
        with tf.device("CPU:0"):  # where the block is: send the share, not the block
            share = {}
            for name, values in block.items():
                shares = tf.reshape(values[i], [replicas, size, *values.shape[2:]])
                share[name] = shares[replica]
        share[POSITION] = replica * size + tf.range(size)
        return step(share)

    # Without AutoGraph, which would wrap an error's one line in a page. A forward
    # function that wants it decorates itself with tf.function.
    @tf.function(input_signature=[dict(spec)], autograph=False)
    def loop(block: Batch) -> tf.Tensor:
        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            going = strategy.run(replica_step, args=(block, i))
            return i + 1, strategy.experimental_local_results(going)[0]

        steps = tf.shape(block["weight"])[0]
        start = tf.constant(0), tf.constant(True)
        return tf.while_loop(lambda i, go: go & (i < steps), body, start)[1]

    return loop
