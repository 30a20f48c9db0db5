"""The batches that are evaluated for each row of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError


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


def check_distinct(names: Sequence[str]) -> None:
    """Raises UsageError if two metrics of a row have the same name."""
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UsageError(
            f"two metrics are called {twice[0]!r}: rename a validation set or a value"
        )
