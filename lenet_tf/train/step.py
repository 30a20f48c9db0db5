"""The step, for one replica, and the loop that runs it in the graph on all of them.

    train_step = TrainStep(model, optimizer, classification, metrics, step)
    run = make_loop(strategy, train_step, batches.spec(replicas))
    run(block)                            # as many steps as the block has batches

`TrainStep.__call__` is the training step in whole. Whoever wants another one writes a
function of (batch) in its place and gives it to `make_loop`.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.losses import Forward
from lenet_tf.nn.random import POSITION, SEED
from lenet_tf.optim.averaging import Average
from lenet_tf.optim.clipping import clip_by_norm
from lenet_tf.optim.loss_scale import LossScale
from lenet_tf.optim.optimizers import Optimizer
from lenet_tf.parallel.collectives import (
    all_reduce_flat,
    all_reduce_sum,
    flatten,
    local_assign_add,
    unflatten,
)
from lenet_tf.train.finite import all_finite
from lenet_tf.train.metrics import EXAMPLES, WEIGHT, Accumulators, weighted_sums

Batch = Mapping[str, tf.Tensor]


class TrainStep:
    """One training step of one replica, on its share of a global batch.

    Args:
      model: its trainable variables are updated.
      optimizer: with its slots built.
      forward: returns per-example values, `loss` among them.
      metrics: accumulates them.
      step: int64 variable, counts global batches.
      seed: of what is random in a step.
      clip_norm: the most the gradient's global norm may be; None leaves it.
      average: of the weights, updated after them.
      loss_scale: for float16.
      jit_compile: whether XLA compiles the gradient.
    """

    def __init__(
        self,
        model: tf.Module,
        optimizer: Optimizer,
        forward: Forward,
        metrics: Accumulators,
        step: tf.Variable,
        seed: int = 0,
        clip_norm: float | None = None,
        average: Average | None = None,
        loss_scale: LossScale | None = None,
        jit_compile: bool = False,
    ) -> None:
        self.model, self.optimizer, self.forward = model, optimizer, forward
        self.metrics, self.step = metrics, step
        self.seed, self.clip_norm, self.average = seed, clip_norm, average
        self.loss_scale = loss_scale
        self._differentiate = (
            tf.function(self._gradients, jit_compile=True, autograph=False)
            if jit_compile
            else self._gradients
        )

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Differentiates, all-reduces, clips, updates and accumulates.

        Args:
          batch: this replica's share, name -> [B, ...].

        Returns:
          Whether loss and gradient were finite, bool scalar: the loop goes on while
          they are.
        """
        variables, step = self.model.trainable_variables, self.step.read_value()
        batch = {**batch, SEED: tf.stack([tf.constant(self.seed, tf.int64), step])}
        scale = self.loss_scale.value() if self.loss_scale else tf.ones([])
        gradients, sums = self._differentiate(batch, scale)
        # All of it as one flat vector: one all-reduce, and one operation for each of
        # what follows instead of one a variable.
        flat = all_reduce_flat(flatten([*gradients, *sums.values()]))
        gradient, totals = flat[: -_count(sums)], flat[-_count(sums) :]
        sums = dict(zip(sums, unflatten(totals, [*sums.values()]), strict=True))
        # Of the mean over the global batch: its real examples, and no padding.
        gradient = tf.math.divide_no_nan(gradient, sums[WEIGHT] * scale)
        finite = all_finite(gradient, sums["loss"])
        if self.clip_norm is not None:
            gradient = clip_by_norm(gradient, self.clip_norm)
        gradients = unflatten(gradient, variables)

        def update() -> None:
            self.optimizer.apply(gradients, variables, step)
            if self.average is not None:
                self.average.update(step)

        self.metrics.update(sums)
        local_assign_add(self.step, tf.ones([], tf.int64))
        if self.loss_scale is not None:
            return self.loss_scale.guard(finite, update)
        update()
        return finite

    def _gradients(
        self, batch: Batch, scale: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns this replica's gradients of its scaled loss sum, and its sums."""
        with tf.GradientTape() as tape:
            values = self.forward(self.model, batch, True)  # name -> [B, ...]
            sums = weighted_sums(values, batch[WEIGHT])  # name -> [...]
            loss = sums["loss"] * scale
        gradients = tape.gradient(
            loss,
            self.model.trainable_variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return gradients, sums


def _count(sums: Mapping[str, tf.Tensor]) -> int:
    return sum(value.shape.num_elements() for value in sums.values())


class EvalStep:
    """One evaluation step of one replica: nothing but the metrics changes."""

    def __init__(
        self, model: tf.Module, forward: Forward, metrics: Accumulators
    ) -> None:
        self.model, self.forward, self.metrics = model, forward, metrics

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Computes the values of the batch and accumulates them; returns true."""
        sums = weighted_sums(self.forward(self.model, batch, False), batch["weight"])
        reduced = all_reduce_sum(list(sums.values()))
        self.metrics.update(dict(zip(sums, reduced, strict=True)))
        return tf.constant(True)


def value_shapes(
    forward: Forward, model: tf.Module, spec: Mapping[str, tf.TensorSpec]
) -> dict[str, list[int]]:
    """Finds what a forward function returns, without computing it.

    Args:
      forward: to be asked.
      model: given to it.
      spec: of a block, as in `make_loop`.

    Returns:
      Name -> shape of one example's value.

    Raises:
      UsageError: not a dict of [B, ...] values, no `loss` [B] among them, or a name
        that the sums need themselves.
    """
    batch = {k: tf.TensorSpec(s.shape[1:], s.dtype) for k, s in spec.items()}
    batch_size = batch[WEIGHT].shape[0]
    batch[POSITION] = tf.TensorSpec([batch_size], tf.int32)
    batch[SEED] = tf.TensorSpec([2], tf.int64)
    traced = tf.function(lambda batch: forward(model, batch, True), autograph=False)
    outputs = traced.get_concrete_function(batch).structured_outputs
    if not isinstance(outputs, Mapping) or "loss" not in outputs:
        raise UsageError(
            f"forward returned {outputs}: return a dict of [batch] values with 'loss'"
        )
    for name, value in outputs.items():
        if name in (WEIGHT, EXAMPLES):
            raise UsageError(f"forward returned {name!r}, which is taken: rename it")
        rank = value.shape.rank
        if not rank or value.shape[0] != batch_size or (name == "loss" and rank > 1):
            raise UsageError(
                f"forward returned {name!r} of shape {value.shape} for a batch of "
                f"{batch_size}: return one value an example, shape [{batch_size}]"
            )
    return {name: list(value.shape[1:]) for name, value in outputs.items()}
