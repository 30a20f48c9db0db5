"""The default training step, and how to write another one.

    trainer = Trainer(model, Adam(1e-3), forward)                  # TrainStep(forward)
    trainer = Trainer(model, Adam(1e-3), forward, step=my_step)    # another one

A step is a function of the run's state and one replica's share of a global batch. All
replicas call it at once. A step of your own changes nothing else: loops, checkpoints,
actions, evaluation and exact resume work with it as they are.

    def sharpness_aware(state, batch):
        variables = state.updates["optimizer"].variables

        def compute(part):
            return forward(state.model, part, True)

        gradients, sums = mean_gradients(compute, batch, state.updates)
        ...
        state.metrics.update(sums)
        return all_finite(...)

The batch is a dict of [B, ...] tensors: the data's own entries; `weight` float32 [B];
`position` int32 [B], the examples' places in the global batch; and `seed` int64 [2],
the run's seed and the step. A step changes only this replica's copies of variables
(`local_assign_add`, `Update.apply`, which clips), by values that are the same on all
replicas. It moves the average of the weights, `state.average`, if there is one. It is
traced without AutoGraph: for a Python `if` or `while` on tensors, put that code into a
`tf.function`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.nn.losses import Forward
from lenet_tf.parallel.collectives import all_reduce_sum
from lenet_tf.train.finite import all_finite
from lenet_tf.train.gradients import mean_gradients
from lenet_tf.train.inner_loop import Batch
from lenet_tf.train.metrics import Accumulators, weighted_sums
from lenet_tf.train.micro_batches import check_parts
from lenet_tf.train.state import TrainState
from lenet_tf.train.watch import StepWatch

# Returns whether to go on, a bool scalar that is the same on all replicas.
Step: TypeAlias = Callable[[TrainState, Batch], tf.Tensor]


class TrainStep:
    """The default step: gradient of the global mean -> clip -> update -> metrics.

    Args:
      forward: Function that returns the per-example values of a batch, among them the
        loss of every update.
      jit_compile: Whether XLA compiles the forward pass and the gradient.
      micro_batches: Number of equal parts that each replica divides its share of a
        batch into; it computes one at a time, and needs memory for one part only.
      watch: Names of more metrics, see `StepWatch`.

    Raises:
      UsageError: `micro_batches` is below 1, or a name in `watch` is unknown.
    """

    def __init__(
        self,
        forward: Forward,
        jit_compile: bool = False,
        *,
        micro_batches: int = 1,
        watch: Sequence[str] = (),
    ) -> None:
        check_parts(micro_batches)
        self.forward, self._jit_compile = forward, jit_compile
        self.micro_batches, self.watch = micro_batches, StepWatch(watch)

    def __call__(self, state: TrainState, batch: Batch) -> tf.Tensor:
        """Makes one step of one replica; returns whether the run can go on."""
        gradients, sums = mean_gradients(
            lambda part: self.forward(state.model, part, True),
            batch,
            state.updates,
            scale=state.loss_scale and state.loss_scale.value(),
            jit_compile=self._jit_compile,
            micro_batches=self.micro_batches,
        )
        losses = [sums[update.loss] for update in state.updates.values()]
        vectors = [vector for part in gradients.values() for vector in part.values()]
        finite = all_finite(*vectors, *losses)
        done = state.updates_done()
        watched = self.watch.begin(state.updates, gradients, finite, done)

        def update() -> None:
            for name, one in state.updates.items():
                one.apply(gradients[name], done)
            if state.average is not None:
                state.average.update(done)

        going = state.guarded(all_finite(*losses), finite, update)
        state.metrics.update(sums | watched.end(sums[WEIGHT]))
        return going


class EvalStep:
    """One evaluation step of one replica: it changes only the metrics.

    Args:
      model: Model that is passed to `forward`.
      forward: Function that returns the per-example values of a batch.
      metrics: Accumulators that the values are added to.
    """

    def __init__(
        self, model: tf.Module, forward: Forward, metrics: Accumulators
    ) -> None:
        self.model, self.forward, self.metrics = model, forward, metrics

    def __call__(self, batch: Batch) -> None:
        """Computes the values of a batch, and adds their sums over all replicas."""
        sums = weighted_sums(self.forward(self.model, batch, False), batch[WEIGHT])
        reduced = all_reduce_sum(list(sums.values()), differentiable=False)
        self.metrics.update(dict(zip(sums, reduced, strict=True)))
