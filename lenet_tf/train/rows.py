"""When a row of the history is due, and where a run ends, in steps.

    rows = Rows(batches, epochs=3, steps=None, row_steps=500, row_examples=None)
    rows.end                              # step at which the run ends
    rows.next_after(700)                  # 1000
    rows.is_due(1000, last=500)           # True

Everything is computed from the step, so a resumed run makes the same rows as one that
was never stopped.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator

from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import UsageError
from lenet_tf.train.inner_loop import steps_in


class Rows:
    """The steps at which a run has rows of the history, and its end.

    Args:
      train: Batches to train on.
      epochs: Total number of epochs of the run, or None.
      steps: Total number of steps of the run, or None. If both are given, the run ends
        at whichever comes first.
      row_steps: Number of steps between two rows, or None.
      row_examples: Number of examples between two rows, or None. A row is made after
        the first batch that reaches a multiple of it. Without `row_steps` and
        `row_examples` there is a row at the end of every epoch.

    Attributes:
      end: Total number of steps of the run. There is always a row at the end.

    Raises:
      UsageError: An argument is too small, neither `epochs` nor `steps` is given, or
        both `row_steps` and `row_examples` are.
    """

    def __init__(
        self,
        train: Batches,
        epochs: int | None,
        steps: int | None,
        row_steps: int | None,
        row_examples: int | None,
    ) -> None:
        _check("epochs", epochs, 0)
        _check("steps", steps, 0)
        _check("row_steps", row_steps, 1)
        _check("row_examples", row_examples, 1)
        if row_steps is not None and row_examples is not None:
            raise UsageError(
                f"row_steps is {row_steps} and row_examples {row_examples}: give one "
                "of them"
            )
        ends = [] if epochs is None else [epochs * train.steps_per_epoch]
        if steps is not None:
            ends.append(steps)
        if not ends:
            raise UsageError("the run has no end: give epochs=3, or steps=1000")
        self.end = min(ends)
        self._train, self._steps, self._examples = train, row_steps, row_examples

    def next_after(self, step: int) -> int:
        """Returns the first step after `step` that has a row if the run goes on."""
        if self._steps is not None:
            return (step // self._steps + 1) * self._steps
        if self._examples is None:
            per_epoch = self._train.steps_per_epoch
            return (step // per_epoch + 1) * per_epoch
        row = self.examples_until(step) // self._examples + 1
        epochs, left = divmod(row * self._examples, self._train.examples)
        return epochs * self._train.steps_per_epoch - (-left // self._train.batch_size)

    def is_due(self, step: int, last: int) -> bool:
        """Whether a step has a row, given the step of the last row (0 if none)."""
        if step <= last:
            return False
        return step == self.end or self.next_after(step - 1) == step

    def examples_until(self, step: int) -> int:
        """Returns the number of examples in the first `step` steps, without padding."""
        epochs, left = divmod(step, self._train.steps_per_epoch)
        return epochs * self._train.examples + left * self._train.batch_size

    def cut(self, blocks: Iterable[Block], start: int) -> Iterator[Block]:
        """Divides blocks that go past a row, and ends them at the run's end.

        Args:
          blocks: Blocks of consecutive batches.
          start: Number of steps before the first block.
        """
        step = start
        for block in blocks:
            done, size = 0, steps_in(block)
            while done < size and step < self.end:
                steps = min(size - done, min(self.next_after(step), self.end) - step)
                whole = steps == size
                yield (
                    block
                    if whole
                    else {
                        name: values[done : done + steps]
                        for name, values in block.items()
                    }
                )
                done, step = done + steps, step + steps
            if step >= self.end:
                return


def _check(name: str, number: object, least: int) -> None:
    if number is None or (
        isinstance(number, numbers.Integral) and int(number) >= least
    ):
        return
    raise UsageError(f"{name} is {number!r}: give a whole number, {least} or more")
