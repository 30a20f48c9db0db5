"""Epochs of a dataset that never ends.

    cut_at_epochs(blocks, steps_per_epoch=100, step=250, end=1000)

A block of batches holds batches of one epoch, so blocks are cut where an epoch ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lenet_tf.data.element_spec import WEIGHT
from lenet_tf.data.sources import Block
from lenet_tf.errors import UsageError


def cut_at_epochs(
    blocks: Iterable[Block], steps_per_epoch: int, step: int, end: int
) -> Iterator[Block]:
    """Yields blocks of batches, none of which crosses the end of an epoch.

    Args:
      blocks: Blocks of any sizes, of all batches from `step` to `end`.
      steps_per_epoch: Number of batches in an epoch.
      step: Number of the first batch, from 0.
      end: Number of the batch before which the run ends.

    Raises:
      UsageError: The blocks end before `end`.
    """
    for block in blocks:
        left = int(block[WEIGHT].shape[0])
        while left:
            count = min(left, steps_per_epoch - step % steps_per_epoch)
            yield {k: v[:count] for k, v in block.items()}
            block = {k: v[count:] for k, v in block.items()}
            left, step = left - count, step + count
    if step < end:
        raise UsageError(
            f"the dataset ended at step {step}, but steps_per_epoch says that it is "
            "endless: add .repeat(), or leave steps_per_epoch out"
        )
