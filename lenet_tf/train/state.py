"""What a run is made of."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf


class RunRecord(tf.train.experimental.PythonState):
    """What a run remembers outside its tensors, saved as JSON in the checkpoint.

    Attributes:
      rows: one dict an epoch that has ended: epoch, step, and its metrics.
      seconds: spent in training loops so far, over all the runs that led here.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def serialize(self) -> str:
        """Returns the JSON text that goes into the checkpoint."""
        return json.dumps({"rows": self.rows, "seconds": self.seconds})

    def deserialize(self, string_value: bytes) -> None:
        """Takes back what `serialize` gave.

        Raises:
          ValueError: it is something else.
        """
        fields: Any = json.loads(string_value)
        try:
            rows = [{str(k): +v for k, v in row.items()} for row in fields["rows"]]
            self.rows, self.seconds = rows, float(fields["seconds"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("its record is not that of a run") from error
