"""Objects that are traced once for all data of the same shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError
from lenet_tf.train.outputs import Spec

_T = TypeVar("_T")


class PerSpec(Generic[_T]):
    """Makes an object for the spec of some data, and returns it again for the same.

    Args:
      make: Function of the shapes and dtypes of a block, from `Batches.spec`.
    """

    def __init__(self, make: Callable[[Spec], _T]) -> None:
        self._make = make
        self._made: dict[object, _T] = {}

    def __call__(self, spec: Spec) -> _T:
        """Returns the object for data of these shapes and dtypes."""
        key = tuple(sorted((k, tuple(s.shape), s.dtype) for k, s in spec.items()))
        if key not in self._made:
            self._made[key] = self._make(spec)
        return self._made[key]

    def all(self) -> list[_T]:
        """Returns all objects made so far."""
        return list(self._made.values())


def spec_of(data: Batches, shares: int) -> Spec:
    """Returns the shapes and dtypes of a block of the data.

    Args:
      data: Batches to evaluate or to train on.
      shares: Number of parts that a batch is divided into.

    Raises:
      UsageError: The data are not `Batches`.
    """
    if not isinstance(data, Batches):
        raise UsageError(
            f"the data are a {type(data).__name__}: give lenet_tf.Batches(data, "
            "batch_size=64)"
        )
    return data.spec(shares)
