"""Checks, before any step, the values that a forward function or a step returns.

seen, shapes = preview_training(step, state, strategy, spec)
shapes                                # {"loss": [], "accuracy": [], "matrix": [10, 10]}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.nn.losses import Forward
from lenet_tf.train.metrics import EXAMPLES, Accumulators
from lenet_tf.train.micro_batches import check_no_writes
from lenet_tf.train.preview import Preview, preview
from lenet_tf.train.state import TrainState
from lenet_tf.train.step import Step, TrainStep

Spec = Mapping[str, tf.TensorSpec]
Shapes = dict[str, list[int]]

# Names that the history, the evaluation and the sums use for entries of their own.
_TAKEN = (WEIGHT, EXAMPLES, "epoch", "step")


def preview_training(
    step: Step, state: TrainState, strategy: tf.distribute.Strategy, spec: Spec
) -> tuple[Preview, Shapes]:
    """Traces a training step, but of the default step only its forward function.

    Args:
      step: Training step.
      state: State that the step is called with.
      strategy: Strategy in whose replicas the step runs.
      spec: Shapes and dtypes of a block, from `Batches.spec`.

    Returns:
      The trace, and metric name -> shape of one example's value.

    Raises:
      UsageError: `forward` does not return per-example tensors with every update's
        loss, changes variables in micro-batches, or returns a name that is watched; or
        a step of another kind does not call `state.metrics.update`, leaves the moving
        average or the loss scale of the trainer aside, or returns no bool.
    """
    if isinstance(step, TrainStep):
        forward = step.forward
        seen = preview(strategy, lambda batch: forward(state.model, batch, True), spec)
        shapes = _value_shapes(seen, strategy, spec)
        for update in state.updates.values():
            _check_loss(update.loss, shapes)
        if step.micro_batches > 1:
            check_no_writes(seen, state.model.variables, step.micro_batches)
        return seen, shapes | _watched_shapes(step, state, shapes)
    recorder = _Recorder()
    recorded = dataclasses.replace(state, metrics=recorder)
    seen = preview(strategy, lambda batch: step(recorded, batch), spec)
    if not recorder.shapes:
        raise UsageError(
            "the step has not called state.metrics.update(sums): give it the sums that "
            "mean_gradients returns"
        )
    _check_step(seen, state)
    return seen, recorder.shapes


def preview_evaluation(
    forward: Forward, model: tf.Module, strategy: tf.distribute.Strategy, spec: Spec
) -> Shapes:
    """Traces a forward function in evaluation; see `preview_training`."""
    seen = preview(strategy, lambda batch: forward(model, batch, False), spec)
    for write in seen.writes(model.variables):
        raise UsageError(
            f"forward changes {write.variable.name.split(':')[0]} with training=False: "
            "an evaluation must leave the model as it is"
        )
    return _value_shapes(seen, strategy, spec)


def _check_step(seen: Preview, state: TrainState) -> None:
    """Refuses a step that would silently ignore what the trainer was made with."""
    going = seen.outputs
    if (
        not isinstance(going, tf.Tensor)
        or going.dtype != tf.bool
        or going.shape.rank != 0
    ):
        raise UsageError(
            f"the step returned {going}: return whether to go on, a bool scalar such "
            "as all_finite(sums['loss'])"
        )
    average, scale = state.average, state.loss_scale
    if average is not None and not seen.writes(average.averages):
        raise UsageError(
            f"ema is {average.decay}, but the step leaves the average as it is: call "
            "state.average.update(state.updates_done()) after the updates"
        )
    if scale is not None and not seen.writes([scale.scale]):
        raise UsageError(
            "loss_scaling is on, but the step does not use it: give mean_gradients "
            "scale=state.loss_scale.value(), and make the updates in state.guarded"
        )


class _Recorder(Accumulators):
    """Records the shapes of the values that a step would accumulate."""

    def __init__(self) -> None:
        super().__init__({})
        self.shapes: Shapes = {}

    def update(self, sums: Mapping[str, tf.Tensor]) -> None:
        for name in (WEIGHT, EXAMPLES):
            if name not in sums:
                raise UsageError(
                    f"the step accumulates {', '.join(map(repr, sums))}, but no "
                    f"{name!r}: give it the sums that mean_gradients returns"
                )
        self.shapes = {
            name: list(value.shape)
            for name, value in sums.items()
            if name not in (WEIGHT, EXAMPLES)
        }


def _value_shapes(
    seen: Preview, strategy: tf.distribute.Strategy, spec: Spec
) -> Shapes:
    values = seen.outputs
    size = spec[WEIGHT].shape[1] // strategy.num_replicas_in_sync
    if not isinstance(values, Mapping) or not values:
        raise UsageError(
            f"forward returned {values}: return a dict of [batch] values with 'loss'"
        )
    for name, value in values.items():
        if name in _TAKEN or name.startswith("val_"):
            raise UsageError(f"forward returned {name!r}, which is taken: rename it")
        if not tf.is_tensor(value):
            raise UsageError(
                f"forward returned {value!r} as {name!r}: return a tensor of one value "
                "per example"
            )
        if not value.shape.rank or value.shape[0] != size:
            raise UsageError(
                f"forward returned {name!r} of shape {value.shape} for a batch of "
                f"{size}: return one value per example, shape [{size}]"
            )
        if None in value.shape:
            raise UsageError(
                f"forward returned {name!r} of shape {value.shape}: all axes must be "
                "known, by tf.ensure_shape for instance"
            )
    return {name: list(value.shape[1:]) for name, value in values.items()}


def _watched_shapes(step: TrainStep, state: TrainState, shapes: Shapes) -> Shapes:
    names = step.watch.names(state.updates)
    for name in names:
        if name in shapes:
            raise UsageError(
                f"forward returned {name!r}, which is also watched: rename it"
            )
        if name.startswith("val_"):
            raise UsageError(
                f"{name!r} would look like a metric of validation: rename the update"
            )
    return {name: [] for name in names}


def _check_loss(loss: str, shapes: Shapes) -> None:
    if loss not in shapes:
        raise UsageError(
            f"forward returned {', '.join(map(repr, shapes))}, but no {loss!r}: return "
            f"a dict of [batch] values with {loss!r}"
        )
    if shapes[loss]:
        raise UsageError(
            f"forward returned {loss!r} of shape {shapes[loss]} per example: a loss is "
            "one number per example, shape [batch], such as the mean over its tokens"
        )
