"""The batches that are evaluated for each row of the history, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping

from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError
from lenet_tf.train.derived import Derived
from lenet_tf.train.metrics import Accumulators


def validation_sets(
    validation: Batches | Mapping[str, Batches] | None,
) -> dict[str, Batches]:
    """Returns the prefix of the metrics' names -> batches.

    Args:
      validation: Batches, whose prefix is "val"; or name -> batches, whose prefix is
        "val_<name>"; or None.

    Raises:
      UsageError: A value is not `Batches`, or a name is empty.
    """
    if validation is None:
        return {}
    sets = validation if isinstance(validation, Mapping) else {"": validation}
    for name, data in sets.items():
        if not isinstance(data, Batches) or (not name and sets is validation):
            raise UsageError(
                f"validation has a {type(data).__name__} as {name!r}: give "
                "lenet_tf.Batches, or several by name: {'clean': Batches(...)}"
            )
    return {f"val_{name}" if name else "val": data for name, data in sets.items()}


def names_in_row(
    derived: Derived, training: Accumulators, evaluated: Mapping[str, Accumulators]
) -> list[str]:
    """Returns the names of the metrics that a row of the history has.

    Args:
      derived: Metrics that are computed from others.
      training: Metrics of training.
      evaluated: Prefix -> metrics of a validation set.

    Raises:
      UsageError: Two metrics have the same name, or a derived one cannot be computed.
    """
    names, *others = derived.names(training, *evaluated.values())
    for prefix, more in zip(evaluated, others, strict=True):
        names += [f"{prefix}_{name}" for name in more]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UsageError(
            f"two metrics are called {twice[0]!r}: rename a validation set or a value"
        )
    return names
