"""Checks that a model's own state (batch statistics, counters) will be correct.

    check_state(seen, model, trained, replicas=2, padding=True)

Each replica updates its own copy of each variable. So the untrained variables that a
step changes must get the same value on all replicas, and not one computed from padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    """Raises an error for a model whose state would silently be wrong.

    Args:
      seen: Trace of the forward pass or the step.
      model: Model whose untrained variables are checked.
      trained: Variables that the updates change.
      replicas: Number of replicas.
      padding: Whether some batches have padding rows.

    Raises:
      UsageError: A variable is changed by each replica from its own examples, without
        an aggregation that combines its copies; or it is changed from padding too.
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
                "aggregation=tf.VariableAggregation.MEAN, or train on one replica; "
                "for batch normalization, use lenet_tf.nn.BatchNorm"
            )
        if padding and WEIGHT not in examples:
            raise UsageError(
                f"{name} is changed in a step from all rows of a batch, and some rows "
                "are padding: use batch['weight'], which is 0 there, in what it is "
                "computed from, or choose a batch size that divides the examples and "
                f"is a multiple of {replicas}"
            )


def check_copies(variables: Sequence[tf.Variable]) -> None:
    """Refuses copies of a variable that have come to differ between the replicas.

    Raises:
      UsageError: A step has changed them by numbers that were not all-reduced.
    """
    for variable in variables:
        first, *others = [v.numpy() for v in getattr(variable, "values", (variable,))]
        if not all(np.array_equal(first, other, equal_nan=True) for other in others):
            raise UsageError(
                f"the copies of {variable.name.split(':')[0]} on the replicas differ: "
                "in a step, change variables only by numbers that are the same on all "
                "of them, such as all-reduced sums and draws of nn.uniform"
            )


def _has_rule(variable: tf.Variable) -> bool:
    """Whether a variable has an aggregation that combines its copies at a write."""
    on_read = variable.synchronization == tf.VariableSynchronization.ON_READ
    return variable.aggregation != tf.VariableAggregation.NONE and not on_read
