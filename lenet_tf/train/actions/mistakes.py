"""The worst mistakes of a classifier, as they are in the middle of a run.

    def probabilities(model, batch):
        return tf.nn.softmax(model(batch["image"]))

    mistakes = Mistakes(validation, probabilities)
    trainer.fit(batches, epochs=3, actions=[TensorBoard("tb", mistakes=mistakes)])

They are looked for in one process, with its own copy of the weights. So with several
workers the chief alone does it, and none of the others has to take part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from lenet_tf.data.batches import WEIGHT, Batches
from lenet_tf.errors import UsageError
from lenet_tf.nn.random import POSITION, SEED
from lenet_tf.train.inner_loop import evaluation_keys
from lenet_tf.train.prediction import check_unchanged
from lenet_tf.train.preview import preview
from lenet_tf.train.state import TrainState

IMAGE, LABEL = "image", "label"
_TOLERANCE = 0.05  # of a sum of probabilities, which may be 16-bit numbers


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example that a classifier takes for one of another class.

    Attributes:
      image: Image of the example, uint8 [H, W, C].
      text: What it is and what it was taken for, such as "4 as 9, 97 %"; the number
        is the probability of the wrong class.
    """

    image: np.ndarray
    text: str


class Mistakes:
    """Finds the examples whose own class gets the least probability.

    Examples of weight 0 are left out.

    Args:
      data: Batches that are not shuffled, with `image`, [B, H, W] or [B, H, W, C] with
        C of 1 or 3, and `label`, integer [B]. Images are uint8 or float; floats that
        leave [0, 1] are scaled from each image's least and largest value.
      probabilities: Function `probabilities(model, batch)` that returns the
        probabilities of the classes, float [B, classes].
      count: Largest number of mistakes.
      rows: Number of rows of the history from one search to the next. The last step
        of the run has one, too.
      class_names: Name of each class; by default its number.

    Attributes:
      count: As given.
      rows: As given.

    Raises:
      UsageError: The batches are shuffled, or their entries are not as above; or a
        number is below 1.
    """

    def __init__(
        self,
        data: Batches,
        probabilities: Callable[[tf.Module, Mapping[str, tf.Tensor]], tf.Tensor],
        *,
        count: int = 16,
        rows: int = 1,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if min(count, rows) < 1:
            raise UsageError(f"count is {count} and rows {rows}: give 1 or more")
        if data.seed is not None:
            raise UsageError(
                f"the batches are shuffled with seed {data.seed}: give Mistakes "
                "Batches(data, batch_size) without a seed"
            )
        self.count, self.rows = count, rows
        self._data, self._function = data, probabilities
        self._names = class_names
        self._spec = data.spec(1)
        _check_entries(self._spec)
        self._compiled: Callable[[Mapping[str, tf.Tensor]], tf.Tensor] | None = None

    def check(self, state: TrainState) -> None:
        """Traces the function, and calls it on the first batch.

        Raises:
          UsageError: The function does not return probabilities, or changes the model;
            or there is another number of class names.
        """
        model, function = state.model, self._function
        one = tf.distribute.get_strategy()
        seen = preview(one, lambda batch: function(model, batch), self._spec)
        check_unchanged(seen, model)
        self._compiled = tf.function(
            lambda batch: function(model, batch), autograph=False
        )
        for batch in self._batches():
            classes = self._answers(batch).shape[1]
            if self._names is not None and len(self._names) != classes:
                raise UsageError(
                    f"there are {len(self._names)} class names for {classes} classes"
                )
            break

    def find(self, state: TrainState) -> list[Mistake]:
        """Returns the mistakes, the worst first.

        Args:
          state: State of the run that was given to `check`. If it has averaged weights,
            these are used.
        """
        average = state.average
        with average.in_place() if average else contextlib.nullcontext():
            found = heapq.nsmallest(self.count, self._all(), key=lambda m: m[:2])
        return [mistake for *_, mistake in found]

    def _all(self) -> Iterator[tuple[float, int, Mistake]]:
        """Yields probability of the own class, number of the example, the mistake."""
        for batch in self._batches():
            answers, labels = self._answers(batch), batch[LABEL].numpy()
            taken_for = answers.argmax(axis=1)
            wrong = (taken_for != labels) & (batch[WEIGHT].numpy() > 0)
            for i in np.flatnonzero(wrong):
                text = f"{self._name(labels[i])} as {self._name(taken_for[i])}"
                text += f", {answers[i].max():.0%}".replace("%", " %")
                image = _shown(batch[IMAGE][i].numpy())
                own = float(answers[i, labels[i]])
                yield own, int(batch[POSITION][i]), Mistake(image, text)

    def _batches(self) -> Iterator[dict[str, tf.Tensor]]:
        """Yields the batches, with the entries that an evaluation adds to them."""
        first = 0
        for block in self._data.blocks(epochs=1):
            for i in range(len(block[WEIGHT])):
                batch = {name: values[i] for name, values in block.items()}
                batch[SEED], start = evaluation_keys(0)(tf.constant(first))
                batch[POSITION] = start + tf.range(len(batch[WEIGHT]))
                first += self._data.batch_size
                yield batch

    def _answers(self, batch: Mapping[str, tf.Tensor]) -> np.ndarray:
        assert self._compiled is not None, "check was not called"
        answers = tf.cast(self._compiled(batch), tf.float32).numpy()
        size = len(batch[WEIGHT])
        if answers.ndim != 2 or len(answers) != size:
            raise UsageError(
                f"the function of Mistakes returned shape {answers.shape} for {size} "
                f"examples: return probabilities [{size}, classes]"
            )
        sums = answers.sum(axis=1)
        if not (np.abs(sums - 1) < _TOLERANCE).all() or answers.min() < 0:
            raise UsageError(
                f"the function of Mistakes returned numbers from {answers.min():.3g} "
                f"to {answers.max():.3g} that add up to {sums[0]:.3g}: return "
                "probabilities, such as tf.nn.softmax(logits)"
            )
        return answers

    def _name(self, label: int) -> str:
        return str(label) if self._names is None else self._names[label]


def _check_entries(spec: Mapping[str, tf.TensorSpec]) -> None:
    for name in (IMAGE, LABEL):
        if name not in spec:
            raise UsageError(
                f"there is no {name!r} in the data, which have {', '.join(spec)}: "
                "Mistakes needs `image` and `label`"
            )
    shape, dtype = spec[IMAGE].shape[2:], spec[IMAGE].dtype
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise UsageError(
            f"the images have shape {tuple(shape)}: Mistakes shows [H, W] or [H, W, C] "
            "with C of 1 or 3"
        )
    if dtype != tf.uint8 and not dtype.is_floating:
        raise UsageError(f"the images are {dtype.name}: Mistakes shows uint8 or float")
    if len(spec[LABEL].shape) != 2 or not spec[LABEL].dtype.is_integer:
        raise UsageError(
            f"the labels are {spec[LABEL].dtype.name} {tuple(spec[LABEL].shape[1:])}: "
            "Mistakes needs one integer for each example"
        )


def _shown(image: np.ndarray) -> np.ndarray:
    """Returns an image [H, W] or [H, W, C] as uint8 [H, W, C]."""
    if image.dtype != np.uint8:
        low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
        if (low, high) != (0.0, 1.0):
            low, high = float(image.min()), float(image.max())
        scaled = (image.astype(np.float32) - low) / max(high - low, 1e-9)
        image = np.rint(255 * scaled).astype(np.uint8)
    return image if image.ndim == 3 else image[:, :, None]
