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
from lenet_tf.parallel.collectives import local_assign_add


class Average(tf.Module):
    """Keeps an average of variables, beside them.

    Args:
      variables: of a model.
      decay: the share of the average that a step keeps. In the first steps it is less,
        (1 + step) / (10 + step), for the start to be forgotten.

    Raises:
      UsageError: `decay` is not in (0, 1).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float) -> None:
        super().__init__(name="average")
        if not 0 < decay < 1:
            raise UsageError(f"ema is {decay}: the decay must be between 0 and 1")
        self.decay = decay
        self._variables = tuple(variables)
        self.averages = [
            tf.Variable(v, trainable=False, name=f"{v.name.split(':')[0]}/average")
            for v in variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Takes in the weights as step (int64 scalar, from 0) has left them.

        Each replica updates its own copy.
        """
        step = tf.cast(step, tf.float32)
        keep = tf.minimum(self.decay, (1 + step) / (10 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            difference = variable.read_value() - average.read_value()
            local_assign_add(average, (1 - keep) * difference)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the model the averaged weights while the context lasts."""
        weights = [variable.numpy() for variable in self._variables]
        self.put()
        try:
            yield
        finally:
            for variable, weight in zip(self._variables, weights, strict=True):
                variable.assign(weight)

    def put(self) -> None:
        """Gives the model the averaged weights for good."""
        for variable, average in zip(self._variables, self.averages, strict=True):
            variable.assign(average.numpy())
