"""Predictions: a model's outputs for every example, in the order of the data.

    prediction = Prediction(strategy, model, function, batches.spec(replicas), seed=0)
    prediction.run(batches, steps_per_loop=100, poll=lambda: None)     # [N, ...]

Row i is the output for example i, and there are no rows for padding. Training and
evaluation replace the values of an example of weight 0; here it keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import BLOCK_BYTES, WEIGHT, Batches
from lenet_tf.errors import DataError, UsageError
from lenet_tf.parallel.workers import check_alike, same_steps
from lenet_tf.train.failures import bad_label
from lenet_tf.train.inner_loop import (
    Batch,
    evaluation_keys,
    part_of,
    share_of,
    spec_of_part,
    steps_in,
)
from lenet_tf.train.outputs import Spec
from lenet_tf.train.preview import Preview, preview

Outputs: TypeAlias = tf.Tensor | Mapping[str, tf.Tensor]
Function: TypeAlias = Callable[[tf.Module, Batch], Outputs]
Rows: TypeAlias = np.ndarray | dict[str, np.ndarray]

_ALONE = "the output"  # name of the only tensor, when a function returns no dict


class Prediction:
    """Predicts for data of the same shapes and dtypes; traced once.

    Args:
      strategy: Strategy in whose replicas the function runs.
      model: Model that is passed to the function.
      function: Function of the model and a replica's share of a batch that returns a
        tensor [B, ...] of any dtype, or a dict of such tensors. The batch is as in an
        evaluation, except that examples of weight 0 have their own values.
      spec: Shapes and dtypes of a block of the data, from `Batches.spec`.
      seed: Seed of the random numbers in the function, used as in an evaluation.

    Raises:
      UsageError: The function does not return one row per example, or changes a
        variable of the model.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: tf.Module,
        function: Function,
        spec: Spec,
        seed: int,
    ) -> None:
        self._strategy, self._model, self._function = strategy, model, function
        self._keys = evaluation_keys(seed)
        seen = preview(strategy, lambda batch: function(model, batch), spec)
        check_unchanged(seen, model)
        self._is_dict = isinstance(seen.outputs, Mapping)
        size = spec[WEIGHT].shape[1] // strategy.num_replicas_in_sync
        self._outputs = {
            name: tf.TensorSpec(value.shape[1:], value.dtype)
            for name, value in _checked(seen.outputs, size).items()
        }
        # The dtypes in which outputs go to other workers; None without workers.
        self._gathered_as: dict[str, tf.DType] | None = None
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self._gathered_as = {
                name: _collective_dtype(name, spec.dtype)
                for name, spec in self._outputs.items()
            }
        self._part = part_of(strategy)
        # AutoGraph would bury the one line of an error in a page of text.
        self._loop = tf.function(
            self._steps,
            input_signature=[
                spec_of_part(spec, self._part),
                *[tf.TensorSpec([], tf.int64)] * 2,
            ],
            autograph=False,
        )
        self._compiled: Callable[..., Sequence[tf.Tensor]] | None = None

    @property
    def traces(self) -> int:
        """Number of times that the loop was traced."""
        return self._loop.experimental_get_tracing_count()

    def run(self, data: Batches, steps_per_loop: int, poll: Callable[[], None]) -> Rows:
        """Predicts for all examples of the data, once.

        Args:
          data: Batches of any size, in the order of their source: that of the arrays,
            of the dataset, or of the dataset of epoch 0.
          steps_per_loop: Largest number of batches in a call of the graph. Fewer are
            taken if their outputs would be larger than 64 MiB.
          poll: Function to call between these calls; it may raise to stop.

        Returns:
          Array [N, ...], or name -> array [N, ...] if the function returns a dict. N is
          the number of examples; row i belongs to example i. Every worker gets all
          rows.

        Raises:
          UsageError: The batches are shuffled, or differ between workers.
          DataError: A label is not in [0, number of classes).
        """
        if data.seed is not None:
            raise UsageError(
                f"the batches are shuffled with seed {data.seed}, so their examples "
                "have no order of their own: predict for Batches(data, batch_size) "
                "without a seed"
            )
        check_alike(self._strategy, data.identity())
        replicas, n = self._strategy.num_replicas_in_sync, data.examples
        fitting = BLOCK_BYTES // (data.rows(replicas) * self._bytes_per_example())
        blocks = data.blocks(
            replicas,
            max(1, min(steps_per_loop, fitting)),
            epochs=1,
            as_given=True,
            part=self._part,
        )
        rows = {
            name: np.empty([n, *spec.shape], spec.dtype.as_numpy_dtype)
            for name, spec in self._outputs.items()
        }
        step = 0
        for block in same_steps(self._strategy, blocks, steps_in):
            poll()
            first = step * data.batch_size
            step += steps_in(block)
            last = min(n, step * data.batch_size)
            values = self._run(block, first, data.batch_size)
            for into, value in zip(rows.values(), values, strict=True):
                real = np.concatenate(value.numpy()[:, : data.batch_size])
                into[first:last] = real[: last - first]
        return rows if self._is_dict else rows[_ALONE]

    def _bytes_per_example(self) -> int:
        sizes = (math.prod(s.shape) * s.dtype.size for s in self._outputs.values())
        return max(1, sum(sizes))

    def _run(self, block: Batch, first: int, size: int) -> Sequence[tf.Tensor]:
        """Returns the outputs for a block, [steps, rows, ...] each."""
        if self._compiled is None:
            # Calling the tf.function itself would warn of retracing; see `InnerLoop`.
            self._compiled = self._loop.get_concrete_function()
        try:
            place = tf.constant([first, size], tf.int64)
            return self._compiled(block, *tf.unstack(place))
        except tf.errors.InvalidArgumentError as error:
            label = bad_label(error)
            if label is None:
                raise
            raise DataError(
                f"{label}; to predict for examples without one, give a function that "
                "does not use it"
            ) from None

    def _steps(
        self, block: Batch, first: tf.Tensor, size: tf.Tensor
    ) -> list[tf.Tensor]:
        steps, rows = tf.shape(block[WEIGHT])[0], block[WEIGHT].shape[1] * self._part[1]

        def body(
            i: tf.Tensor, arrays: list[tf.TensorArray]
        ) -> tuple[tf.Tensor, list[tf.TensorArray]]:
            values = self._strategy.run(
                self._share, args=(block, i, first + size * tf.cast(i, tf.int64))
            )
            with tf.device("CPU:0"):
                whole = map(self._whole, self._outputs, values)
                pairs = zip(arrays, whole, strict=True)
                return i + 1, [array.write(i, value) for array, value in pairs]

        with tf.device("CPU:0"):  # where the rows go: no device holds a block of them
            arrays = [
                tf.TensorArray(s.dtype, steps, element_shape=[rows, *s.shape])
                for s in self._outputs.values()
            ]
        start = tf.constant(0), arrays
        _, arrays = tf.while_loop(lambda i, _: i < steps, body, start)
        with tf.device("CPU:0"):
            return [array.stack() for array in arrays]

    def _share(self, block: Batch, i: tf.Tensor, first: tf.Tensor) -> list[tf.Tensor]:
        """Returns the outputs for one replica's share of batch i of a block."""
        share = share_of(block, i, self._keys(first), self._part)
        size = share[WEIGHT].shape[0]
        outputs = _checked(self._function(self._model, share), size)
        # Copies, since a tensor that all replicas return, such as a constant, would be
        # taken for that of a single one.
        if self._gathered_as is None:
            return [tf.identity(outputs[name]) for name in self._outputs]
        return [
            tf.identity(tf.cast(outputs[name], dtype))
            for name, dtype in self._gathered_as.items()
        ]

    def _whole(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """Joins the outputs of all replicas, also of those on other workers."""
        if self._gathered_as is None:
            local = self._strategy.experimental_local_results(value)
            return tf.concat(local, axis=0)
        gathered = self._strategy.gather(value, axis=0)
        return tf.cast(gathered, self._outputs[name].dtype)


def _checked(outputs: object, size: int) -> dict[str, tf.Tensor]:
    """Returns a function's outputs by name, if each has one row per example."""
    named = outputs if isinstance(outputs, Mapping) else {_ALONE: outputs}
    if not named:
        raise UsageError(
            "the function returned an empty dict: return a tensor with one row per "
            "example, or a dict of them"
        )
    for name, value in named.items():
        if not isinstance(value, tf.Tensor | tf.Variable):
            what = "" if name is _ALONE else f"{name!r} as "
            raise UsageError(
                f"the function returned {what}a {type(value).__name__}: return a dense "
                "tensor with one row per example, or a dict of them"
            )
        if not value.shape.rank or value.shape[0] != size:
            raise UsageError(
                f"the function returned {_named(name)} of shape {value.shape} for a "
                f"batch of {size}: return one row per example, shape [{size}, ...]"
            )
        if None in value.shape:
            raise UsageError(
                f"the function returned {_named(name)} of shape {value.shape}: all "
                "axes must be known, by tf.ensure_shape for instance"
            )
    return dict(named)


def _named(name: str) -> str:
    return "a tensor" if name is _ALONE else repr(name)


def check_unchanged(seen: Preview, model: tf.Module) -> None:
    """Checks that a traced function of a model leaves its variables as they are.

    Raises:
      UsageError: It changes one.
    """
    for write in seen.writes(model.variables):
        raise UsageError(
            f"the function changes {write.variable.name.split(':')[0]}: a prediction "
            "must leave the model as it is, so call it with training=False"
        )


def _collective_dtype(name: str, dtype: tf.DType) -> tf.DType:
    """Returns a dtype that workers can exchange and that holds all its values."""
    if dtype in (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64):
        return dtype
    if dtype.is_floating:
        return tf.float32
    if dtype.is_integer or dtype.is_bool:
        return tf.int64
    raise UsageError(
        f"the function returned {_named(name)} of dtype {dtype.name}, which several "
        "workers cannot exchange: return numbers, or predict in one process"
    )
