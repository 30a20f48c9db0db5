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
from typing import Any

import numpy as np
import tensorflow as tf

from lenet_tf.data.buckets import Buckets, check_buckets, cut_at_buckets, longest
from lenet_tf.data.element_spec import WEIGHT as WEIGHT
from lenet_tf.data.opening import SourceLike, open_source
from lenet_tf.data.order import FOR_EVER, blocks_in_order
from lenet_tf.data.random_access import RandomAccessSource, Transform
from lenet_tf.data.record_source import RecordSource
from lenet_tf.data.sources import PADDING as PADDING
from lenet_tf.data.sources import Block as Block
from lenet_tf.data.stream_source import StreamSource
from lenet_tf.errors import UsageError

BLOCK_BYTES = 64 * 2**20
_MAX_PADDING_BYTES = 2**30


class Batches:
    """Examples cut into global batches, in an order fixed by (seed, epoch).

    Args:
      source: Source of the examples, one of
        - a dict of arrays [N, ...], kept in memory, but read row by row if one of
          them is an np.memmap or `transform` is given;
        - an object whose `__getitem__(i)` returns example i, a dict or tuple of arrays,
          numbers or strings, and whose `__len__` their number. It is called from
          several threads at once. `Records` of TFRecord files are such an object;
        - a `tf.data.Dataset` of dicts or tuples, which may be nested, each a single
          example. A run resumes exactly
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
      buckets: Lengths, each above the one before, of the entries whose examples differ
        in length along their first axis, such as {"tokens": (32, 64)}. A batch is
        padded with zeros, or empty strings, to the smallest length that holds its
        longest example; `tokens_length`, int32, has the examples' own. In memory such
        an entry is a ragged tensor or a sequence of rows. Several workers always pad
        to the largest length.

    Attributes:
      examples: Number of examples in an epoch.
      batch_size: Number of examples in a global batch.
      seed: Seed for shuffling, or None.

    Raises:
      UsageError: The source is of another kind, has no examples or none of positive
        weight, its entries cannot be batched, its length is unknown or differs from
        `examples`, `batch_size` is below 1 or far above the number of examples, or
        `seed` is not an int64, or it or `transform` is given with a dataset; or
        `steps_per_epoch` is below 1 or is given with what has an end; or a length in
        `buckets` is not above the one before.
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
        buckets: Buckets | None = None,
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
        self._buckets = check_buckets(buckets)
        self._source = open_source(
            source,
            seed,
            examples,
            transform,
            longest=longest(self._buckets),
            endless=steps_per_epoch is not None,
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
        self._blocks: tuple[str, tf.data.Dataset] | None = None

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
            k: tf.TensorSpec(
                [None, rows, None, *e.shape[1:]]
                if k in self._buckets
                else [None, rows, *e.shape],
                e.dtype,
            )
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
        blocks = self._padded_blocks(
            rows, own, steps_per_loop, start_step, epochs, max_bytes, as_given
        )
        if not self._buckets or part[1] > 1:  # a worker does not see the whole batch
            yield from blocks
            return

        def real_rows(before: int, steps: int) -> np.ndarray:
            batch = (start_step + before + np.arange(steps)) % self.steps_per_epoch
            row = np.arange(rows)
            place = batch[:, None] * self.batch_size + row
            return (row < self.batch_size) & (place < self.examples)

        yield from cut_at_buckets(
            blocks, self._buckets, real_rows if as_given else None
        )

    def _padded_blocks(
        self,
        rows: int,
        own: slice,
        steps_per_loop: int,
        start_step: int,
        epochs: int | None,
        max_bytes: int,
        as_given: bool,
    ) -> Iterator[Block]:
        """Yields blocks whose entries have their largest lengths; see `blocks`."""
        fitting = max_bytes // ((own.stop - own.start) * self._bytes_per_example())
        steps = max(1, min(steps_per_loop, self.steps_per_epoch, fitting))
        if isinstance(self._source, StreamSource):
            yield from self._source.blocks(
                self.batch_size, start_step, epochs, rows, own, steps, as_given
            )
            return
        epoch, first = divmod(start_step, self.steps_per_epoch)
        blocks = self._indexed_blocks(
            epoch=epoch,
            first_step=first,
            epochs=max(0, (FOR_EVER if epochs is None else epochs) - epoch),
            rows=rows,
            own=own,
            steps=steps,
            as_given=as_given,
        )
        if not isinstance(self._source, RandomAccessSource):
            yield from blocks
            return
        try:
            for block in blocks:
                self._source.check(block)
                yield block
        except (tf.errors.OpError, UnicodeDecodeError):
            # TensorFlow quotes a record that it cannot parse, whatever its bytes are.
            if not isinstance(self._source, RecordSource):
                raise
            failure = self._source.explain()
            if failure is None:
                raise
            raise failure from failure.__cause__

    def _bytes_per_example(self) -> int:
        entries = self._source.spec.values()
        return max(1, sum(math.prod(e.shape) * e.dtype.size for e in entries))

    def _indexed_blocks(self, **settings: Any) -> tf.data.Dataset:
        """Returns the dataset of blocks, the same again if nothing has changed."""
        key = repr(settings)
        if self._blocks is None or self._blocks[0] != key:
            assert not isinstance(self._source, StreamSource)
            made = blocks_in_order(self._source, self.batch_size, self.seed, **settings)
            self._blocks = key, made
        return self._blocks[1]
