"""What a run is made of: everything that a step may read or change.

    state.model, state.updates, state.step, state.metrics, state.average

All of it is saved together, so one checkpoint is enough to resume a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lenet_tf.checkpoint.compare import values_by_key
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.optim.averaging import Average
from lenet_tf.optim.loss_scale import LossScale
from lenet_tf.train.metrics import Accumulators
from lenet_tf.train.record import RunRecord
from lenet_tf.train.update import Rule, Update, distinct_variables

OPTIMIZER = "optimizer"  # name of the only update of most runs


@dataclasses.dataclass
class TrainState:
    """The state that a step is called with, besides its batch.

    Attributes:
      model: Model.
      updates: Name -> `Update`: an optimizer, its variables, and its loss's name.
      step: Number of global batches trained on, int64 scalar. The loop adds 1 after
        each step.
      average: Moving average of the weights, or None.
      loss_scale: Dynamic factor of the loss for float16, or None.
      record: History and wall-clock time.
      metrics: Sums of the metrics over the epoch so far. `Trainer.start` makes them.
      own: The step itself if it is a `tf.Module`, so that its variables are saved.
    """

    model: tf.Module
    updates: Mapping[str, Update]
    step: tf.Variable
    average: Average | None
    loss_scale: LossScale | None
    record: RunRecord
    metrics: Accumulators
    own: tf.Module | None = None

    def make_metrics(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Makes the accumulators of a step's values, unless they are there.

        Args:
          shapes: Name -> shape of one example's value.

        Raises:
          UsageError: They are there, and the shapes were others.
        """
        before = {key: list(total.shape) for key, total in self.metrics.totals.items()}
        if not before:
            self.metrics = Accumulators(shapes)
        elif before != shapes:
            raise UsageError(
                f"the values of a step are {shapes}, but were {before}: make another "
                "Trainer for other data"
            )

    @property
    def trained(self) -> tuple[tf.Variable, ...]:
        """The variables that the updates change."""
        return tuple(v for update in self.updates.values() for v in update.variables)

    def check_order(self) -> None:
        """Checks, after a restore, that slots and averages belong to their variables.

        Raises:
          CheckpointError: An update has other variables than in the checkpoint, or the
            same ones in another order.
        """
        for name, now in trained_keys(self.model, self.updates).items():
            before = self.record.trained.get(name, now)
            if before != now:
                raise CheckpointError(
                    f"the variables of the update {name!r} are {', '.join(now)}, but "
                    f"were {', '.join(before)} in the checkpoint: name them in this "
                    "order"
                )
        if self.average and list(self.record.trained) != list(self.updates):
            names = ", ".join(self.record.trained)
            raise CheckpointError(
                f"the updates are {', '.join(self.updates)}, but were {names} in the "
                "checkpoint: name them in this order"
            )

    def updates_done(self) -> tf.Tensor:
        """Returns the number of updates made so far, int64 scalar.

        It is the number of steps, less those that loss scaling has skipped.
        """
        step = self.step.read_value()
        if self.loss_scale is None:
            return step
        return step - self.loss_scale.skipped.read_value()

    def guarded(
        self, loss_finite: tf.Tensor, finite: tf.Tensor, update: Callable[[], None]
    ) -> tf.Tensor:
        """Calls `update`; with loss scaling only if loss and gradient are finite.

        Args:
          loss_finite: Whether the loss is finite, bool scalar.
          finite: Whether both loss and gradient are finite, bool scalar. Both flags are
            the same on all replicas.
          update: Function that changes the weights.

        Returns:
          Whether the run can go on, bool scalar.
        """
        if self.loss_scale is not None:
            return self.loss_scale.guard(loss_finite, finite, update)
        update()
        return finite

    def parts(self) -> dict[str, Any]:
        """Returns key -> trackable object, the contents of a checkpoint."""
        optimizers = {name: update.optimizer for name, update in self.updates.items()}
        alone = optimizers.pop(OPTIMIZER, None) if len(optimizers) == 1 else None
        parts: dict[str, Any] = {
            "model": self.model,
            "optimizer": alone,
            "optimizers": optimizers or None,
            "average": self.average,
            "loss_scale": self.loss_scale,
            "metrics": self.metrics,
            "step": self.step,
            "record": self.record,
            "own": self.own,
        }
        return {name: part for name, part in parts.items() if part is not None}


def make_state(
    model: tf.Module,
    optimizer: Rule | Mapping[str, Update],
    strategy: tf.distribute.Strategy,
    *,
    clip_norm: float | None,
    ema: float | None,
    loss_scaling: bool,
    own: tf.Module | None,
) -> TrainState:
    """Makes the state of a run at step 0, slots included; see `Trainer`."""
    if not isinstance(model, tf.Module):
        raise UsageError(
            f"model is a {type(model).__name__}: it must be a tf.Module, whose "
            "variables are found and saved; one of Keras is wrapped by "
            "lenet_tf.keras.model(it)"
        )
    if isinstance(optimizer, Update | list | tuple):
        raise UsageError(
            "optimizer is an Update or a list: give updates by name, as in "
            "{'head': Update(model.head, Adam(1e-3))}"
        )
    if not isinstance(optimizer, Mapping):
        updates = {OPTIMIZER: Update(model, optimizer, clip_norm=clip_norm)}
    elif clip_norm is None:
        updates = dict(optimizer)
    else:
        raise UsageError(
            f"clip_norm is {clip_norm}, with several updates: give each its own, as in "
            "Update(model, optimizer, clip_norm=1.0)"
        )
    trained = distinct_variables(updates)
    for variable in trained:
        if not strategy.extended.variable_created_in_scope(variable):
            raise UsageError(
                f"{variable.name} was made outside the strategy: make the model within "
                "`with strategy.scope():`"
            )
    record = RunRecord()
    record.trained = trained_keys(model, updates)
    with strategy.scope():
        for update in updates.values():
            update.optimizer.build(update.variables)
        return TrainState(
            model=model,
            updates=updates,
            step=tf.Variable(0, dtype=tf.int64, trainable=False, name="step"),
            average=None if ema is None else Average(trained, ema),
            loss_scale=LossScale() if loss_scaling else None,
            record=record,
            metrics=Accumulators({}),
            own=own,
        )


def trained_keys(
    model: tf.Module, updates: Mapping[str, Update]
) -> dict[str, list[str]]:
    """Returns update name -> keys of its variables in the model's checkpoint."""
    keys = {id(value): key for key, value in values_by_key(model).items()}
    return {
        name: [keys.get(id(v), f"({v.name})") for v in update.variables]
        for name, update in updates.items()
    }
