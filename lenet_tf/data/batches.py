"""Global batches, as a pure function of (seed, step).

    batches = Batches({"image": images, "label": labels}, batch_size=64, seed=0)
    for block in batches.blocks(replicas=2, steps_per_loop=100, start_step=700):
        block["image"]        # [steps, rows, H, W, C]
        block["weight"]       # float32 [steps, rows], 0 where a row is padding

A block holds consecutive batches of one epoch, for one call of the training loop in the
graph. The rows of a batch are divided evenly among the replicas, so a batch is
padded to a multiple of their number, and the last batch of an epoch to full size.
Padding has weight 0 and repeats a real example. The batches from a step on are the same
whether the run started at that step or reached it from step 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT as WEIGHT
from lenet_tf.data.endless import cut_at_epochs
from lenet_tf.data.opening import SourceLike, open_source
from lenet_tf.data.random_access import RandomAccessSource, Transform
from lenet_tf.data.sources import PADDING as PADDING
from lenet_tf.data.sources import Block as Block
from lenet_tf.data.sources import IndexedSource, StreamSource
from lenet_tf.errors import UsageError

BLOCK_BYTES = 64 * 2**20
_MAX_PADDING_BYTES = 2**30
_FOR_EVER = 2**62


class Batches:
    """Examples cut into global batches, in an order fixed by (seed, epoch).

    Args:
      source: Source of the examples, one of
        - a dict of arrays [N, ...], kept in memory, but read row by row if one of
          them is an np.memmap or `transform` is given;
        - an object whose `__getitem__(i)` returns example i, a dict or tuple of arrays,
          numbers or strings, and whose `__len__` their number. It is called from
          several threads at once;
        - a `tf.data.Dataset` of dicts, each a single example. A run resumes exactly
          only if the order is the same at each iteration. It may be endless if
          `steps_per_epoch` is given;
        - a function from the epoch (int, from 0) to such a dataset, for an order that
          changes from epoch to epoch.
        An optional entry `weight` holds each example's weight, one number.
      batch_size: Number of examples in a global batch, over all replicas.
      seed: Seed for shuffling what is not a dataset, an int64; None keeps its order.
      examples: Number of elements in a dataset, needed if its cardinality is unknown.
      transform: Function from one example to a dict, applied in several threads when
        the example is read; not for a dataset, which has `map`. It must return the same
        at each call, so what is random belongs into the model.
      steps_per_epoch: Number of batches that make an epoch of an endless dataset, of
        which the next epoch reads on; not for other sources, which have their own.

    Attributes:
      examples: Number of examples in an epoch.
      batch_size: Number of examples in a global batch.
      seed: Seed for shuffling, or None.

    Raises:
      UsageError: The source is of another kind, has no examples or none of positive
        weight, its entries cannot be batched, its length is unknown or differs from
        `examples`, `batch_size` is below 1 or far above the number of examples, or
        `seed` is not an int64, or it or `transform` is given with a dataset; or
        `steps_per_epoch` is below 1 or is given with what has an end.
    """

    def __init__(
        self,
        source: SourceLike,
        batch_size: int,
        *,
        seed: int | None = None,
        examples: int | None = None,
        transform: Transform | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(
                f"batch_size is {batch_size!r}: it must be a whole number, at least 1"
            )
        if seed is not None and not -(2**63) <= seed < 2**63:
            raise UsageError(f"seed is {seed}: it must fit into 64 bits, with its sign")
        if steps_per_epoch is not None:
            if steps_per_epoch < 1 or examples is not None:
                raise UsageError(
                    f"steps_per_epoch is {steps_per_epoch} and examples {examples}: "
                    "give one of them, at least 1"
                )
            examples = int(steps_per_epoch) * batch_size
        self._source = open_source(
            source, seed, examples, transform, endless=steps_per_epoch is not None
        )
        self.examples: int = self._source.examples
        self.batch_size = int(batch_size)
        self.seed = None if seed is None else int(seed)
        if self.examples < 1:
            raise UsageError("the source has no examples: give at least one")
        padding = (batch_size - self.examples) * self._bytes_per_example()
        if padding > _MAX_PADDING_BYTES:
            raise UsageError(
                f"batch_size is {batch_size}: it must be at most {self.examples}, the "
                f"number of examples, or {padding / 2**30:.3g} GiB would be padding"
            )
        # The last blocks made, kept because evaluation asks for the same ones again.
        self._blocks: tuple[tuple[int, ...], tf.data.Dataset] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch; the last may hold fewer examples."""
        return -(-self.examples // self.batch_size)

    def rows(self, replicas: int) -> int:
        """Returns the batch size, rounded up to a multiple of the replicas' number."""
        return -(-self.batch_size // replicas) * replicas

    def spec(self, replicas: int) -> dict[str, tf.TensorSpec]:
        """Returns the shape and dtype of a block's entries, for any number of steps."""
        elements = {**self._source.spec, WEIGHT: tf.TensorSpec([], tf.float32)}
        rows = self.rows(replicas)
        return {
            k: tf.TensorSpec([None, rows, *e.shape], e.dtype)
            for k, e in elements.items()
        }

    def identity(self) -> dict[str, int | str | None]:
        """Returns values by which a resumed run recognizes its data and their order.

        Returns:
          `examples`, `batch_size`, `seed`, and `checksum`: a CRC-32 of the names,
          dtypes, shapes and contents of arrays in memory, and of the names, dtypes and
          shapes of other examples, whose contents are not read.
        """
        return {
            "examples": self.examples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "checksum": self._source.checksum,
        }

    def blocks(
        self,
        replicas: int = 1,
        steps_per_loop: int = 100,
        *,
        start_step: int = 0,
        epochs: int | None = None,
        max_bytes: int = BLOCK_BYTES,
        as_given: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Block]:
        """Yields the blocks from `start_step` on.

        How many batches a block holds does not change what the batches are.

        Args:
          replicas: Number of replicas; a batch is padded to a multiple of it.
          steps_per_loop: Largest number of batches in a block. A block also ends with
            its epoch.
          start_step: Number of batches to skip, counted from the start of epoch 0.
          epochs: Number of epochs, counted from epoch 0, to end after; None for no end.
          max_bytes: Largest size of a block in bytes, unless a single batch is larger.
            About four blocks are in memory at a time, so that the next ones are ready.
          as_given: Whether examples of weight 0 keep their own values, as predictions
            need it. By default they are replaced, like padding, by another example.
          part: Part of each batch to yield: (i, n) for part i, from 0, of n parts of
            equal size, in the order of the rows. Of arrays and of examples read one by
            one, no others are read. `replicas` must be a multiple of n.

        Yields:
          Dicts of tensors [steps, rows / n, ...], `weight` among them.

        Raises:
          UsageError: An epoch of a dataset does not have `examples` elements, or an
            endless dataset ends.
          DataError: An example cannot be read, or is not like the first.
        """
        rows = self.rows(replicas)
        own = slice(*(rows * i // part[1] for i in (part[0], part[0] + 1)))
        fitting = max_bytes // max(
            1, (own.stop - own.start) * self._bytes_per_example()
        )
        steps = max(1, min(steps_per_loop, self.steps_per_epoch, fitting))
        epoch, first = divmod(start_step, self.steps_per_epoch)
        if not isinstance(self._source, StreamSource):
            count = max(0, (_FOR_EVER if epochs is None else epochs) - epoch)
            try:
                yield from self._indexed_blocks(
                    epoch, first, rows, steps, count, own=own, as_given=as_given
                )
            except tf.errors.OpError as error:
                if not isinstance(self._source, RandomAccessSource):
                    raise
                failure = self._source.explain(error)
                if failure is None:
                    raise
                raise failure from failure.__cause__
            return
        if self._source.endless:
            end = _FOR_EVER if epochs is None else epochs * self.steps_per_epoch
            batches = self._source.batches(
                0, start_step, self.batch_size, rows, as_given
            ).take(max(0, end - start_step))
            blocks = _ready(_own_rows(batches, own).batch(steps))
            yield from cut_at_epochs(blocks, self.steps_per_epoch, start_step, end)
            return
        while epochs is None or epoch < epochs:
            batches = self._source.batches(
                epoch, first, self.batch_size, rows, as_given
            )
            try:
                yield from _ready(_own_rows(batches, own).batch(steps))
            except tf.errors.FailedPreconditionError as error:
                if "expected to contain" not in error.message:
                    raise
                raise UsageError(
                    f"epoch {epoch} of the dataset does not have {self.examples} "
                    "examples: pass examples=N with the number that every epoch has"
                ) from error
            epoch, first = epoch + 1, 0

    def _bytes_per_example(self) -> int:
        entries = self._source.spec.values()
        return sum(math.prod(e.shape) * e.dtype.size for e in entries)

    def _indexed_blocks(
        self, *start: int, own: slice, as_given: bool
    ) -> tf.data.Dataset:
        """Returns the dataset of blocks, the same again if nothing has changed."""
        key = (as_given, own.start, own.stop, *start)
        if self._blocks is None or self._blocks[0] != key:
            self._blocks = (
                key,
                self._make_indexed_blocks(*start, own=own, as_given=as_given),
            )
        return self._blocks[1]

    def _make_indexed_blocks(
        self,
        start_epoch: int,
        first_step: int,
        rows: int,
        steps: int,
        epochs: int,
        *,
        own: slice,
        as_given: bool,
    ) -> tf.data.Dataset:
        assert not isinstance(self._source, StreamSource)
        source: IndexedSource = self._source
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
            return tf.data.Dataset.from_tensor_slices(index[first:, own]).batch(steps)

        dataset = tf.data.Dataset.range(start_epoch, start_epoch + epochs)
        indices = dataset.flat_map(batches_of_epoch)
        return _ready(indices.map(lambda index: source.gather(index, as_given)))


def epoch_order(examples: int, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the order of the examples in an epoch, int32 [examples].

    The order is a pure function of (seed, epoch). Without a seed it is 0, 1, 2 ...
    """
    order = tf.range(examples)
    if seed is None:
        return order
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_shuffle(order, key)


def _own_rows(batches: tf.data.Dataset, own: slice) -> tf.data.Dataset:
    return batches.map(lambda batch: {k: v[own] for k, v in batch.items()})


def _ready(blocks: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetches two blocks."""
    options = tf.data.Options()
    # There is nothing to tune, and closing an autotuned iterator waits for its tuning
    # thread, which sleeps for 10 ms, 20 ms, 40 ms and so on, up to seconds.
    options.autotune.enabled = False
    return blocks.prefetch(2).with_options(options)
