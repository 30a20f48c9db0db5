"""The record of a run: its history, and all else that is not in variables.

record.rows                           # [{"epoch": 1, "step": 907, "loss": 0.3, ...}]

It is JSON text in the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from lenet_tf.errors import UsageError

_MAY_CHANGE = ("checksum", "seed")

Identity = Mapping[str, int | str | None]
ActionState = Mapping[str, Any]  # JSON values by name


class RunRecord(tf.train.experimental.PythonState):
    """The part of a run that is not in variables, saved as JSON in the checkpoint.

    Attributes:
      rows: Rows of the history, usually one for each epoch: epoch, step, metrics.
      seconds: Wall-clock seconds spent in `fit`, including evaluation, saving and the
        earlier processes of a resumed run.
      data: Identity of the training data (`Batches.identity`); None before `fit`.
      ended: Number of steps that `fit` was asked for when an action ended the run by
        `Enough`; None if no action has.
      actions: What actions remember, by their names.
      trained: Update name -> keys of its variables in the model. The slots have this
        order, and so do the averages, one update after the other.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.data: Identity | None = None
        self.ended: int | None = None
        self.actions: dict[str, ActionState] = {}
        self.trained: dict[str, list[str]] = {}

    def begin(
        self, data: Identity, step: int, changed: bool = False
    ) -> dict[str, int | str | None]:
        """Records the training data, after a check that they are the same as before.

        Args:
          data: Identity of the training data (`Batches.identity`).
          step: Number of steps done.
          changed: Whether the examples and their order may differ from before. Their
            number and the batch size may not, since they decide where an epoch ends.

        Returns:
          Description -> value of everything that must be the same in all workers.

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
                "pass data_changed=True if only values of examples were corrected"
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
                "trained": self.trained,
            }
        )

    def deserialize(self, string_value: bytes) -> None:
        """Restores the attributes from what `serialize` returned.

        Raises:
          ValueError: The text is not the record of a run.
        """
        fields: Any = json.loads(string_value)
        try:
            rows = [{str(k): +v for k, v in row.items()} for row in fields["rows"]]
            data = fields.get("data")
            self.rows, self.seconds = rows, float(fields["seconds"])
            self.data = None if data is None else dict(data)
            self.ended = fields.get("ended_steps")
            self.actions = dict(fields.get("actions", {}))
            self.trained = dict(fields.get("trained", self.trained))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError("its record is not that of a run") from error
