"""Global batches, as a pure function of (seed, step).

    batches = Batches({"image": images, "label": labels}, batch_size=64, seed=0)
    for block in batches.blocks(replicas=2, steps_per_loop=100, start_step=700):
        block["image"]        # [steps, rows, H, W, C]
        block["weight"]       # float32 [steps, rows], 0 where a row is padding

A block is up to `steps_per_loop` consecutive batches of one epoch, which the in-graph
loop takes at one call. The rows of a batch are divided evenly among the replicas, so a
batch is padded to a multiple of their number, and the last one of an epoch to full
size; padding has weight 0 and repeats a real example. Starting at a step gives the
same batches as having come there from step 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError

Block = dict[str, tf.Tensor]
Arrays = Mapping[str, np.ndarray]
Source: TypeAlias = Arrays | tf.data.Dataset | Callable[[int], tf.data.Dataset]

WEIGHT = "weight"  # of an example; 0 where a row is padding
PADDING = -1
FOR_EVER = 2**62


class Batches:
    """Examples cut into global batches, in an order fixed by (seed, epoch).

    Args:
      source: one of
        - a dict of arrays [N, ...], kept in memory; shuffled when `seed` is given;
        - a `tf.data.Dataset` of dicts, one example an element, in an order of its own
          that must be the same at each iteration for a run to be resumable exactly;
        - a function from the epoch (int, from 0) to such a dataset, for an order that
          changes from epoch to epoch.
        An entry `weight` (float32 scalar an example) weighs the examples.
      batch_size: examples in a global batch, over all replicas.
      seed: of the order of arrays; None keeps the order they have.
      examples: how many elements a dataset has, where it cannot tell.

    Raises:
      UsageError: no examples, arrays of different lengths, a dataset of unknown length,
        a batch size below 1, a seed with a dataset, or no dict.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int | None = None,
        examples: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
        self.batch_size, self.seed = batch_size, seed
        self._resident: dict[str, tf.Tensor] | None = None
        self._datasets: dict[tuple[int, ...], tf.data.Dataset] = {}
        if isinstance(source, Mapping):
            self.examples = _common_length(source)
            with tf.device("CPU:0"):
                self._resident = {k: tf.constant(v) for k, v in source.items()}
        elif not callable(source) and not isinstance(source, tf.data.Dataset):
            raise UsageError(
                f"the source is a {type(source).__name__}: give a dict of arrays, a "
                "tf.data.Dataset of dicts, or a function of the epoch that returns one"
            )
        else:
            if seed is not None:
                raise UsageError(
                    "seed was given with a tf.data.Dataset, which has its own order: "
                    "shuffle in the dataset, or pass a function of the epoch"
                )
            self._stream: Callable[[int], tf.data.Dataset] = (
                source if callable(source) else lambda epoch: source
            )
            self.examples = _dataset_length(self._stream(0), examples)
        if self.examples < 1:
            raise UsageError("the source has no examples: give at least one")

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the ragged last one included."""
        return -(-self.examples // self.batch_size)

    def rows(self, replicas: int) -> int:
        """Rows of a global batch: the batch size, padded to a multiple of replicas."""
        return -(-self.batch_size // replicas) * replicas

    def spec(self, replicas: int) -> dict[str, tf.TensorSpec]:
        """Shape and dtype of a block's entries, of any number of steps."""
        if self._resident is not None:
            elements = {
                k: tf.TensorSpec(v.shape[1:], v.dtype)
                for k, v in self._resident.items()
            }
        else:
            elements = dict(self._stream(0).element_spec)
        elements["weight"] = tf.TensorSpec([], tf.float32)
        rows = self.rows(replicas)
        return {
            k: tf.TensorSpec([None, rows, *e.shape], e.dtype)
            for k, e in elements.items()
        }

    def blocks(
        self,
        replicas: int = 1,
        steps_per_loop: int = 100,
        *,
        start_step: int = 0,
        epochs: int | None = None,
    ) -> Iterator[Block]:
        """Yields the blocks from a step on.

        Args:
          replicas: rows are padded to a multiple of it.
          steps_per_loop: the most batches in a block; blocks end with their epoch.
          start_step: how many batches to pass over, counted from epoch 0.
          epochs: the epoch (counted from 0) to end before; None goes on for ever.

        Yields:
          Dicts of tensors [steps, rows, ...], `weight` among them.
        """
        if self._resident is not None:
            start = divmod(start_step, self.steps_per_epoch)
            last = FOR_EVER if epochs is None else epochs
            count = max(0, last - start[0])
            key = (*start, self.rows(replicas), steps_per_loop, count)
            if key not in self._datasets:  # evaluation comes back every epoch
                self._datasets[key] = self._resident_dataset(*key)
            yield from self._datasets[key]
            return
        epoch, first = divmod(start_step, self.steps_per_epoch)
        while epochs is None or epoch < epochs:
            dataset = self._streamed_dataset(epoch, first, replicas, steps_per_loop)
            try:
                yield from dataset
            except tf.errors.FailedPreconditionError as error:
                raise UsageError(
                    f"epoch {epoch} of the dataset has not the {self.examples} "
                    "examples it is said to have: give their number as examples="
                ) from error
            epoch, first = epoch + 1, 0

    def _resident_dataset(
        self, start_epoch: int, first_step: int, rows: int, steps: int, epochs: int
    ) -> tf.data.Dataset:
        assert self._resident is not None
        resident = self._resident
        padded = self.steps_per_epoch * self.batch_size

        def batches_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            index = epoch_order(self.examples, self.seed, epoch)
            index = tf.pad(
                index, [[0, padded - self.examples]], constant_values=PADDING
            )
            index = tf.reshape(index, [self.steps_per_epoch, self.batch_size])
            index = tf.pad(
                index, [[0, 0], [0, rows - self.batch_size]], constant_values=PADDING
            )
            first = tf.where(tf.equal(epoch, start_epoch), first_step, 0)
            return tf.data.Dataset.from_tensor_slices(index[first:]).batch(steps)

        def gather(index: tf.Tensor) -> Block:
            block = {k: tf.gather(v, tf.maximum(index, 0)) for k, v in resident.items()}
            return _weighted(block, tf.cast(index != PADDING, tf.float32))

        dataset = tf.data.Dataset.range(start_epoch, start_epoch + epochs)
        return _ready(dataset.flat_map(batches_of_epoch).map(gather))

    def _streamed_dataset(
        self, epoch: int, first_step: int, replicas: int, steps: int
    ) -> tf.data.Dataset:
        rows = self.rows(replicas)

        def pad(batch: Block) -> Block:
            size = tf.shape(next(iter(batch.values())))[0]
            index = tf.range(rows)
            real = index < size
            index = tf.where(real, index, 0)
            return _weighted(
                {
                    k: tf.ensure_shape(tf.gather(v, index), [rows, *v.shape[1:]])
                    for k, v in batch.items()
                },
                tf.cast(real, tf.float32),
            )

        dataset = self._stream(epoch).skip(first_step * self.batch_size)
        # Too few or too many of them is an error of its own, not a wrong epoch.
        left = self.examples - first_step * self.batch_size
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(left))
        return _ready(dataset.batch(self.batch_size).map(pad).batch(steps))


def _ready(blocks: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps two blocks ready."""
    options = tf.data.Options()
    # There is nothing to tune, and the end of a tuned iterator waits for its tuner,
    # which sleeps for 10 ms times a growing power of two: seconds, after a few seconds.
    options.autotune.enabled = False
    return blocks.prefetch(2).with_options(options)


def epoch_order(examples: int, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the order of the examples in an epoch, int32 [examples].

    A permutation that is a pure function of (seed, epoch), or 0, 1, 2 ... without seed.
    """
    order = tf.range(examples)
    if seed is None:
        return order
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_shuffle(order, key)


def _weighted(block: Block, real: tf.Tensor) -> Block:
    """Gives a block its weights: those of the examples, and 0 for padding."""
    if "weight" in block:
        real *= tf.cast(block["weight"], tf.float32)
    return {**block, "weight": real}


def _common_length(arrays: Arrays) -> int:
    lengths = {
        name: len(array) if np.ndim(array) else "none" for name, array in arrays.items()
    }
    if len(set(lengths.values())) != 1 or "none" in lengths.values():
        raise UsageError(f"the arrays have lengths {lengths}: give one or more, equal")
    return int(next(iter(lengths.values())))


def _dataset_length(dataset: tf.data.Dataset, examples: int | None) -> int:
    if not isinstance(dataset.element_spec, Mapping):
        raise UsageError(
            f"the dataset's elements are {dataset.element_spec}: map them to dicts, "
            'as in dataset.map(lambda x, y: {"image": x, "label": y})'
        )
    known = int(dataset.cardinality())
    if examples is not None and known in (examples, tf.data.UNKNOWN_CARDINALITY):
        return examples
    if examples is not None:
        raise UsageError(f"examples is {examples}, but the dataset has {known}")
    if known < 0:
        raise UsageError(
            "the dataset has no known length: pass examples=N, or apply "
            "tf.data.experimental.assert_cardinality(N)"
        )
    return known
