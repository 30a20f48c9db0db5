"""A model's own state (batch statistics, counters) is exact, or refused.

    check_state(seen, model, replicas=2, padding=True)

Each replica updates its own copies of variables. What a step changes besides trained
variables must therefore be alike on all of them, must not be computed from padding, and
must be in checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.train.preview import Preview


def check_state(
    seen: Preview,
    model: tf.Module,
    trained: Sequence[tf.Variable],
    *,
    replicas: int,
    padding: bool,
) -> None:
    """Refuses a model whose state would silently be wrong.

    Args:
      seen: The traced forward pass or step.
      model: Its untrained variables are looked at.
      trained: The variables that updates change.
      replicas: Number of replicas.
      padding: Whether some batches have padding rows.

    Raises:
      UsageError: A variable is changed by each replica from its own examples and has no
        rule how the copies come together; or from padding rows too.
    """
    known = {id(variable) for variable in trained}
    state = [v for v in model.variables if id(v) not in known]
    for write in seen.writes(state):
        name = write.variable.name.split(":")[0]
        examples = write.inputs - {"seed"}
        if not examples:
            continue  # a counter, say: the same on every replica
        if replicas > 1 and not _has_rule(write.variable):
            raise UsageError(
                f"{name} is changed in a step by each replica from its own examples, "
                f"so its {replicas} copies would differ: make it with "
                "aggregation=tf.VariableAggregation.MEAN, or train on one replica"
            )
        if padding and WEIGHT not in examples:
            raise UsageError(
                f"{name} is changed in a step from all rows of a batch, and some rows "
                "are padding: use batch['weight'], which is 0 there, in what it is "
                "computed from, or choose a batch size that divides the examples and "
                f"is a multiple of {replicas}"
            )


def _has_rule(variable: tf.Variable) -> bool:
    """Whether a variable says how its copies come together when it is assigned."""
    on_read = variable.synchronization == tf.VariableSynchronization.ON_READ
    return variable.aggregation != tf.VariableAggregation.NONE and not on_read
