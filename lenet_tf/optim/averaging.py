"""The exponential moving average of the weights.

    average = Average(model.trainable_variables, decay=0.999)
    average.update(step)                  # after each update of the weights
    with average.in_place():
        ...                               # the model has the averaged weights

Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging",
1992, in the exponential form of Kingma and Ba, "Adam", 2015, section 7.2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.optimizer import accumulation_dtype
from lenet_tf.parallel.collectives import local_assign_add


class Average(tf.Module):
    """Moving averages of variables, one for each.

    Args:
      variables: Variables of a model. The averages have their dtypes, but float32 for
        bfloat16 and float16, in which small changes would be rounded away.
      decay: Share of the average that a step keeps, in (0, 1). The first steps keep
        less, (1 + step) / (10 + step), so that the initial weights are forgotten, as
        in `tf.train.ExponentialMovingAverage`.

    Raises:
      UsageError: `decay` is not in (0, 1).
    """

    _variables: tuple[tf.Variable, ...]

    def __init__(self, variables: Sequence[tf.Variable], decay: float) -> None:
        super().__init__(name="average")
        if not 0 < decay < 1:
            raise UsageError(f"ema is {decay}: the decay must be between 0 and 1")
        self.decay = decay
        # Not tracked: they are the model's, whose checkpoint keys do not depend on the
        # order in which updates name them.
        object.__setattr__(self, "_variables", tuple(variables))
        self.averages = [
            tf.Variable(
                tf.cast(v, accumulation_dtype(v)),
                trainable=False,
                name=f"{v.name.split(':')[0]}/average",
            )
            for v in variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Moves this replica's averages towards its weights.

        Args:
          step: Number of updates before the one that made these weights, int64 scalar.
        """
        step = tf.cast(step, tf.float32)
        keep = tf.minimum(self.decay, (1 + step) / (10 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            weight = tf.cast(variable.read_value(), average.dtype)
            difference = weight - average.read_value()
            local_assign_add(average, tf.cast(1 - keep, average.dtype) * difference)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the model the averaged weights within the context."""
        weights = [variable.numpy() for variable in self._variables]
        self.assign_to_model()
        try:
            yield
        finally:
            for variable, weight in zip(self._variables, weights, strict=True):
                variable.assign(weight)

    def assign_to_model(self) -> None:
        """Replaces the model's weights by the averaged ones."""
        for variable, average in zip(self._variables, self.averages, strict=True):
            variable.assign(average.numpy().astype(variable.dtype.as_numpy_dtype))
