"""The order of examples in each epoch, and blocks of batches in that order.

epoch_order(60_000, seed=0, epoch=tf.constant(3))      # int32 [60_000]
blocks_in_order(source, batch_size=64, seed=0, ...)    # a dataset of blocks
"""

from __future__ import annotations

import tensorflow as tf

from lenet_tf.data.sources import PADDING, Block, IndexedSource

FOR_EVER = 2**62  # epochs, or steps


def epoch_order(examples: int, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the order of the examples in an epoch, int32 [examples].

    The order is a pure function of (seed, epoch). Without a seed it is 0, 1, 2 ...
    """
    order = tf.range(examples)
    if seed is None:
        return order
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_shuffle(order, key)


def blocks_in_order(
    source: IndexedSource,
    batch_size: int,
    seed: int | None,
    *,
    epoch: int,
    first_step: int,
    epochs: int,
    rows: int,
    own: slice,
    steps: int,
    as_given: bool,
) -> tf.data.Dataset:
    """Returns a dataset of blocks, which never cross the end of an epoch.

    Args:
      source: Source of the examples.
      batch_size: Number of examples in a batch.
      seed: Seed of the order, or None for that of the source.
      epoch: Number of the first epoch, from 0.
      first_step: Number of batches to skip in the first epoch.
      epochs: Number of epochs.
      rows: Number of rows in a batch, those of padding included.
      own: Rows of each batch to read.
      steps: Largest number of batches in a block.
      as_given: Whether examples of weight 0 keep their own values.
    """
    examples, steps_per_epoch = source.examples, -(-source.examples // batch_size)

    def batches_of_epoch(number: tf.Tensor) -> tf.data.Dataset:
        index = epoch_order(examples, seed, number)
        padding = steps_per_epoch * batch_size - examples
        index = tf.pad(index, [[0, padding]], constant_values=PADDING)
        index = tf.reshape(index, [steps_per_epoch, batch_size])
        index = tf.pad(index, [[0, 0], [0, rows - batch_size]], constant_values=PADDING)
        first = tf.where(tf.equal(number, epoch), first_step, 0)
        return tf.data.Dataset.from_tensor_slices(index[first:, own]).batch(steps)

    indices = tf.data.Dataset.range(epoch, epoch + epochs).flat_map(batches_of_epoch)
    return ready(indices.map(lambda index: source.gather(index, as_given)))


def own_rows(batches: tf.data.Dataset, own: slice) -> tf.data.Dataset:
    """Returns batches with some of their rows only."""

    def choose(batch: Block) -> Block:
        return {name: values[own] for name, values in batch.items()}

    return batches.map(choose)


def ready(blocks: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset of which the next two elements are made ahead."""
    options = tf.data.Options()
    # There is nothing to tune, and closing an autotuned iterator waits for its tuning
    # thread, which sleeps for 10 ms, 20 ms, 40 ms and so on, up to seconds.
    options.autotune.enabled = False
    return blocks.prefetch(2).with_options(options)
