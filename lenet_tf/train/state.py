"""What a run is made of: everything that a step may read or change.

    state.model, state.updates, state.step, state.metrics, state.average

All of it is saved together, so one checkpoint is enough to resume a run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.averaging import Average
from lenet_tf.optim.loss_scale import LossScale
from lenet_tf.train.metrics import Accumulators
from lenet_tf.train.update import Rule, Update, distinct_variables

_MAY_CHANGE = ("checksum", "seed")
OPTIMIZER = "optimizer"  # name of the only update of most runs

Identity = Mapping[str, int | str | None]
ActionState = Mapping[str, Any]  # JSON values by name


class RunRecord(tf.train.experimental.PythonState):
    """The part of a run that is not in variables, saved as JSON in the checkpoint.

    Attributes:
      rows: Rows of the history, usually one for each epoch: epoch, step, metrics.
      seconds: Wall-clock seconds spent in `fit`, evaluation and saving included, also
        by the earlier processes of a resumed run.
      data: Identity of the training data (`Batches.identity`); None before `fit`.
      ended: Number of steps that were asked for when an action ended the run by
        `Enough`; None if that has not happened.
      actions: What actions remember, by their names.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.data: Identity | None = None
        self.ended: int | None = None
        self.actions: dict[str, ActionState] = {}

    def begin(
        self, data: Identity, step: int, changed: bool = False
    ) -> dict[str, int | str | None]:
        """Records the training data, after a check that they are those of before.

        Args:
          data: Identity of the training data (`Batches.identity`).
          step: Number of steps done.
          changed: Whether the examples and their order may be others than before; their
            number and the batch size may not, since they tell where an epoch ends.

        Returns:
          Description -> value, of what must be the same in all workers.

        Raises:
          UsageError: The steps so far were trained on other data.
        """
        before = self.data if step and self.data else {}
        differing = [
            f"{key} was {value} and is {data.get(key)}"
            for key, value in before.items()
            if data.get(key) != value and not (changed and key in _MAY_CHANGE)
        ]
        if differing:
            raise UsageError(
                f"the {step} steps so far were trained on other batches "
                f"({', '.join(differing)}): go on with those, make another Trainer, or "
                "pass data_changed=True if only values of examples were mended"
            )
        self.data = data
        here = {f"the {key} of the training data": v for key, v in data.items()}
        return {"the step to go on from": step, **here}

    @property
    def last_row(self) -> int:
        """Step of the last row of the history; 0 if there is none."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def history(self) -> dict[str, list[float]]:
        """Returns metric name -> one value per row; NaN where a row has none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {
            name: [row.get(name, float("nan")) for row in self.rows]
            for name in names
            if name not in ("epoch", "step")
        }

    def serialize(self) -> str:
        """Returns the JSON text that goes into the checkpoint."""
        return json.dumps(
            {
                "rows": self.rows,
                "seconds": self.seconds,
                "data": self.data,
                "ended_steps": self.ended,
                "actions": self.actions,
            }
        )

    def deserialize(self, string_value: bytes) -> None:
        """Restores the attributes from what `serialize` returned.

        Raises:
          ValueError: The text is something else.
        """
        fields: Any = json.loads(string_value)
        try:
            rows = [{str(k): +v for k, v in row.items()} for row in fields["rows"]]
            data = fields.get("data")
            self.rows, self.seconds = rows, float(fields["seconds"])
            self.data = None if data is None else dict(data)
            self.ended = fields.get("ended_steps")
            self.actions = dict(fields.get("actions", {}))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError("its record is not that of a run") from error


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
            "variables are found and saved"
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
    with strategy.scope():
        for update in updates.values():
            update.optimizer.build(update.variables)
        return TrainState(
            model=model,
            updates=updates,
            step=tf.Variable(0, dtype=tf.int64, trainable=False, name="step"),
            average=None if ema is None else Average(trained, ema),
            loss_scale=LossScale() if loss_scaling else None,
            record=RunRecord(),
            metrics=Accumulators({}),
            own=own,
        )
