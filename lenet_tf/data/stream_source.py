"""A `tf.data.Dataset` as a source: read from its start, in its own order.

    source = StreamSource(lambda epoch: dataset, examples=None)
    source.batches(epoch=0, first_step=7, batch_size=64, rows=64, as_given=False)

As in other sources, a row of weight 0 holds a copy of an example of positive weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import tensorflow as tf

from lenet_tf.data.element_spec import WEIGHT, check_stream
from lenet_tf.data.endless import cut_at_epochs
from lenet_tf.data.order import FOR_EVER, own_rows, ready
from lenet_tf.data.padding import explain_length
from lenet_tf.data.sources import ALL_WEIGHTS_0, Block, Spec, spec_checksum
from lenet_tf.errors import UsageError

Streams = Callable[[int], tf.data.Dataset]


class StreamSource:
    """A `tf.data.Dataset` for each epoch, whose elements are dicts of one example.

    Args:
      streams: Function that returns the dataset of an epoch (int, from 0).
      examples: Number of elements in each dataset, needed if its cardinality is
        unknown.
      endless: Whether epoch 0 never ends; `examples` is then the number that is called
        an epoch.

    Raises:
      UsageError: The elements cannot be batched, or their number is unknown.
    """

    def __init__(
        self, streams: Streams, examples: int | None, endless: bool = False
    ) -> None:
        self._streams, self.endless = streams, endless
        first = streams(0)
        if not isinstance(first, tf.data.Dataset):
            raise UsageError(
                f"the source returned a {type(first).__name__} for epoch 0: it must "
                "return a tf.data.Dataset"
            )
        self.spec: Spec = check_stream(first.element_spec)
        self.examples: int = (
            _epoch_of_endless(first, examples)
            if endless
            else _number_of_elements(first, examples)
        )

    def blocks(
        self,
        batch_size: int,
        start_step: int,
        epochs: int | None,
        rows: int,
        own: slice,
        steps: int,
        as_given: bool,
    ) -> Iterator[Block]:
        """Yields blocks of batches from a step on; none crosses the end of an epoch.

        Args:
          batch_size: Number of examples in a batch.
          start_step: Number of batches to skip, counted from the start of epoch 0.
          epochs: Number of epochs, counted from epoch 0, to end after; None for no end.
          rows: Number of rows in a batch, those of padding included.
          own: Rows of each batch to yield.
          steps: Largest number of batches in a block.
          as_given: Whether examples of weight 0 keep their own values.

        Raises:
          UsageError: An epoch does not have `examples` elements, or an endless dataset
            ends.
          DataError: An element is longer than the largest bucket of its entry.
        """
        steps_per_epoch = -(-self.examples // batch_size)

        def blocks_from(epoch: int, step: int, count: int) -> tf.data.Dataset:
            batches = self.batches(epoch, step, batch_size, rows, as_given)
            return ready(own_rows(batches.take(count), own).batch(steps))

        try:
            if self.endless:
                end = FOR_EVER if epochs is None else epochs * steps_per_epoch
                blocks = blocks_from(0, start_step, max(0, end - start_step))
                yield from cut_at_epochs(blocks, steps_per_epoch, start_step, end)
                return
            epoch, first = divmod(start_step, steps_per_epoch)
            while epochs is None or epoch < epochs:
                yield from blocks_from(epoch, first, FOR_EVER)
                epoch, first = epoch + 1, 0
        except tf.errors.FailedPreconditionError as error:
            if "expected to contain" not in error.message:
                raise
            raise UsageError(
                f"epoch {epoch} of the dataset does not have {self.examples} examples: "
                "pass examples=N with the number that every epoch has"
            ) from error
        except tf.errors.InvalidArgumentError as error:
            failure = explain_length(error)
            if failure is None:
                raise
            raise failure from None

    def batches(
        self, epoch: int, first_step: int, batch_size: int, rows: int, as_given: bool
    ) -> tf.data.Dataset:
        """Returns a dataset of the batches of an epoch.

        Args:
          epoch: Number of the epoch, from 0.
          first_step: Number of batches to skip at the start of the epoch.
          batch_size: Number of examples in a batch; the last may have fewer.
          rows: Number of rows in every batch, those of padding included.
          as_given: Whether examples of weight 0 keep their own values.

        Returns:
          A dataset of dicts of tensors [rows, ...], `weight` among them. Iterating it
          raises FailedPreconditionError if the epoch does not have `examples` elements.
        """
        stand_in = {} if as_given else self._stand_in

        def pad(batch: Block) -> Block:
            size = tf.shape(next(iter(batch.values())))[0]
            real = tf.range(rows) < size
            index = tf.where(real, tf.range(rows), 0)
            weight = tf.cast(real, tf.float32)
            if WEIGHT in batch:
                own = tf.cast(batch[WEIGHT], tf.float32)
                weight = tf.where(real, tf.gather(own, index), 0.0)
                if not as_given:
                    batch = {
                        k: tf.where(_column(own != 0, v.shape.rank), v, stand_in[k])
                        for k, v in batch.items()
                    }
            block = {
                k: tf.ensure_shape(tf.gather(v, index), [rows, *v.shape[1:]])
                for k, v in batch.items()
            }
            return {**block, WEIGHT: weight}

        skipped = first_step * batch_size
        dataset = self._streams(epoch).skip(skipped)
        if not self.endless:
            # An error if the epoch has another length, instead of ending it there.
            left = tf.data.experimental.assert_cardinality(self.examples - skipped)
            dataset = dataset.apply(left)
        return dataset.batch(batch_size).map(pad)

    @functools.cached_property
    def _stand_in(self) -> Block:
        """The first example of positive weight, which fills rows of weight 0."""
        if WEIGHT not in self.spec:
            return {}
        positive = self._streams(0).filter(lambda e: tf.cast(e[WEIGHT], tf.float32) > 0)
        for example in positive.take(1):
            return dict(example)
        raise UsageError(ALL_WEIGHTS_0)

    @property
    def checksum(self) -> int:
        """CRC-32 of the elements' names, dtypes and shapes."""
        return spec_checksum(self.spec)


def _number_of_elements(dataset: tf.data.Dataset, examples: int | None) -> int:
    known = int(dataset.cardinality())
    if known == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            "the dataset is endless: remove .repeat(), since every epoch reads the "
            "dataset again, or pass steps_per_epoch=N"
        )
    if examples is not None and known in (examples, tf.data.UNKNOWN_CARDINALITY):
        return examples
    if examples is not None:
        raise UsageError(f"examples is {examples}, but the dataset has {known}")
    if known == tf.data.UNKNOWN_CARDINALITY:
        raise UsageError(
            "the dataset has no known length: pass examples=N, or apply "
            "tf.data.experimental.assert_cardinality(N)"
        )
    return known


def _epoch_of_endless(dataset: tf.data.Dataset, examples: int | None) -> int:
    known = int(dataset.cardinality())
    if known not in (tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY):
        raise UsageError(
            f"steps_per_epoch was given, but the dataset ends after {known} examples: "
            "leave it out, or make the dataset endless with .repeat()"
        )
    assert examples is not None
    return examples


def _column(values: tf.Tensor, rank: int) -> tf.Tensor:
    """Reshapes [B] to [B, 1, ...] with `rank` dimensions, for broadcasting."""
    return tf.reshape(values, [-1] + [1] * (rank - 1))
