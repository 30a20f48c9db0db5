"""The step, for one replica, and the loop that runs it in the graph on all of them.

    step = TrainStep(model, optimizer, classification, metrics)
    run = make_loop(strategy, step, batches.spec(replicas))
    run(block)                            # as many steps as the block has batches

`TrainStep.__call__` is the training step in whole. Whoever wants another one writes a
function of (batch) in its place and gives it to `make_loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from lenet_tf.distribute import all_reduce_sum, local_assign_add
from lenet_tf.errors import UsageError
from lenet_tf.losses import Forward
from lenet_tf.metrics import WEIGHT, Accumulators, weighted_sums
from lenet_tf.optimizers import Optimizer

Batch = Mapping[str, tf.Tensor]


class TrainStep:
    """One training step of one replica, on its share of a global batch."""

    def __init__(
        self,
        model: tf.Module,
        optimizer: Optimizer,
        forward: Forward,
        metrics: Accumulators,
        step: tf.Variable,
    ) -> None:
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.metrics, self.step = metrics, step

    def __call__(self, batch: Batch) -> None:
        """Differentiates, all-reduces, updates and accumulates."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            values = self.forward(self.model, batch, True)  # name -> [B]
            sums = weighted_sums(values, batch["weight"])  # name -> []
        gradients = tape.gradient(
            sums["loss"], variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        reduced = all_reduce_sum([*gradients, *sums.values()])
        sums = dict(zip(sums, reduced[len(variables) :], strict=True))
        # The gradient of the mean over the global batch: its real examples, no padding.
        gradients = [
            tf.math.divide_no_nan(total, sums[WEIGHT])
            for total in reduced[: len(variables)]
        ]
        self.optimizer.apply(gradients, variables, self.step.read_value())
        self.metrics.update(sums)
        local_assign_add(self.step, tf.ones([], tf.int64))


class EvalStep:
    """One evaluation step of one replica: nothing but the metrics changes."""

    def __init__(
        self, model: tf.Module, forward: Forward, metrics: Accumulators
    ) -> None:
        self.model, self.forward, self.metrics = model, forward, metrics

    def __call__(self, batch: Batch) -> None:
        """Computes the values of the batch and accumulates them."""
        sums = weighted_sums(self.forward(self.model, batch, False), batch["weight"])
        reduced = all_reduce_sum(list(sums.values()))
        self.metrics.update(dict(zip(sums, reduced, strict=True)))


def make_loop(
    strategy: tf.distribute.Strategy,
    step: Callable[[Batch], None],
    spec: Mapping[str, tf.TensorSpec],
) -> Any:
    """Compiles the inner loop: every batch of a block through every replica.

    Args:
      strategy: runs the step.
      step: takes a replica's share of a batch, a dict of [B, ...].
      spec: name -> shape [steps (None), rows, ...] of a block; rows are divided evenly.

    Returns:
      A `tf.function` that takes a block. The number of steps is not part of its
      signature: one trace serves the short block at the end of an epoch too.
    """

    def replica_step(block: Batch, i: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group
        with tf.device("CPU:0"):  # where the block is: send the share, not the block
            share = {
                name: values[i, replica * size : (replica + 1) * size]
                for name, values in block.items()
                for size in [values.shape[1] // strategy.num_replicas_in_sync]
            }
        step(share)

    # Without AutoGraph, which would wrap an error's one line in a page. A forward
    # function that wants it decorates itself with tf.function.
    @tf.function(input_signature=[dict(spec)], autograph=False)
    def loop(block: Batch) -> None:
        def body(i: tf.Tensor) -> list[tf.Tensor]:
            strategy.run(replica_step, args=(block, i))
            return [i + 1]

        steps = tf.shape(block["weight"])[0]
        tf.while_loop(lambda i: i < steps, body, [tf.constant(0)])

    return loop


def value_names(
    forward: Forward, model: tf.Module, spec: Mapping[str, tf.TensorSpec]
) -> list[str]:
    """Finds what a forward function returns, without computing it.

    Args:
      forward: to be asked.
      model: given to it.
      spec: of a block, as in `make_loop`.

    Returns:
      The names of its per-example values.

    Raises:
      UsageError: not a dict of [B] values, or no `loss` among them.
    """
    rows = [tf.TensorSpec(s.shape[1:], s.dtype) for s in spec.values()]
    batch_size = rows[0].shape[0]
    traced = tf.function(
        lambda *values: forward(model, dict(zip(spec, values, strict=True)), True),
        autograph=False,
    )
    outputs = traced.get_concrete_function(*rows).structured_outputs
    if not isinstance(outputs, Mapping) or "loss" not in outputs:
        raise UsageError(
            f"forward returned {outputs}: return a dict of [batch] values with 'loss'"
        )
    for name, value in outputs.items():
        if value.shape.rank != 1 or value.shape[0] not in (None, batch_size):
            raise UsageError(
                f"forward returned {name!r} of shape {value.shape} for a batch of "
                f"{batch_size}: return one value an example, shape [{batch_size}]"
            )
    return list(outputs)
