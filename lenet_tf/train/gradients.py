"""The gradient of the mean loss of the global batch, the same on all replicas.

    def compute(part):
        return forward(state.model, part, True)

    gradients, sums = mean_gradients(compute, batch, state.updates)
    gradients["optimizer"]                # dtype -> vector of all its entries
    sums["loss"] / sums["weight"]         # the mean loss of the global batch

Each replica differentiates the weighted *sum* over its own examples. The sums and the
gradients are added up over the replicas, and only then divided by the sum of the
weights of the global batch: so every example counts once, and padding does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import all_reduce_flat, flatten, unflatten
from lenet_tf.train.inner_loop import Batch
from lenet_tf.train.metrics import Sums, Values, weighted_sums
from lenet_tf.train.micro_batches import sum_over_parts
from lenet_tf.train.update import Gradient, Update

# Update name -> a gradient for each of its variables, and the sums of the values.
Local = tuple[dict[str, list[tf.Tensor]], Sums]


def mean_gradients(
    compute: Callable[[Batch], Values],
    batch: Batch,
    updates: Mapping[str, Update],
    *,
    scale: tf.Tensor | None = None,
    jit_compile: bool = False,
    micro_batches: int = 1,
) -> tuple[dict[str, Gradient], Sums]:
    """Computes the gradient of each update's mean loss over the global batch.

    Must be called in a replica context, by all replicas.

    Args:
      compute: Function of this replica's examples, or of a part of them, that returns
        their values [B, ...] by name, among them the loss [B] of every update.
      batch: This replica's share of the batch, name -> [B, ...]. Its `weight`, float32
        [B], is 0 for padding.
      updates: Updates by name; each has the variables to differentiate by and the name
        of its loss.
      scale: Factor of the losses, float32 scalar, that the gradients are divided by
        after the all-reduce (see `LossScale`); None does not scale.
      jit_compile: Whether XLA compiles `compute` and its gradient.
      micro_batches: Number of equal parts that the share is divided into; `compute` is
        called on one part at a time, and needs memory for one part only.

    Returns:
      Update name -> dtype -> vector of the gradients of the update's variables of that
      dtype, in their order; and the unscaled sums over the global batch, as from
      `weighted_sums`.

    Raises:
      UsageError: A loss is missing, or does not depend on any variable of its update;
        the share cannot be divided into `micro_batches` parts, or `compute` changes a
        variable in each of them.
    """

    def differentiate(part: Batch) -> Local:
        return _differentiate(lambda: compute(part), part[WEIGHT], updates, scale)

    def compiled(part: Batch) -> Local:
        function = tf.function(
            lambda: differentiate(part), jit_compile=True, autograph=False
        )
        return function()

    function = compiled if jit_compile else differentiate
    if micro_batches == 1:
        local, local_sums = function(batch)
    else:
        local, local_sums = sum_over_parts(function, batch, micro_batches)

    gradients: dict[str, Gradient] = {name: {} for name in updates}
    sums: Sums = {}
    for dtype in _dtypes(updates, local_sums):
        parts = {name: [g for g in local[name] if g.dtype == dtype] for name in updates}
        values = {key: s for key, s in local_sums.items() if s.dtype == dtype}
        flat = all_reduce_flat(
            flatten([*(g for part in parts.values() for g in part), *values.values()])
        )
        sizes = [_size(part) for part in parts.values()]
        *vectors, totals = tf.split(flat, [*sizes, _size(list(values.values()))])
        for name, vector in zip(parts, vectors, strict=True):
            if parts[name]:
                gradients[name][dtype] = vector
        if values:
            reduced = unflatten(totals, list(values.values()))
            sums |= dict(zip(values, reduced, strict=True))
    divisor = sums[WEIGHT] if scale is None else sums[WEIGHT] * scale
    for gradient in gradients.values():
        for dtype, vector in gradient.items():
            gradient[dtype] = _quotient(vector, divisor)
    return gradients, {key: sums[key] for key in local_sums}


def _differentiate(
    compute: Callable[[], Values],
    weight: tf.Tensor,
    updates: Mapping[str, Update],
    scale: tf.Tensor | None,
) -> Local:
    """Returns this replica's gradients of the updates, and its sums."""
    by_loss: dict[str, list[str]] = {}
    for name, update in updates.items():
        by_loss.setdefault(update.loss, []).append(name)
    with tf.GradientTape(persistent=len(by_loss) > 1) as tape:
        sums = weighted_sums(compute(), weight)
        missing = ", ".join(map(repr, by_loss.keys() - sums.keys()))
        if missing:
            raise UsageError(
                f"there is no value {missing}, but {', '.join(map(repr, sums))}: "
                "return the loss of every update"
            )
        targets = {
            loss: sums[loss] if scale is None else sums[loss] * scale
            for loss in by_loss
        }
    gradients: dict[str, list[tf.Tensor]] = {}
    for loss, names in by_loss.items():  # one backward pass for each loss
        variables = [updates[name].variables for name in names]
        found = tape.gradient(targets[loss], variables)
        for name, part in zip(names, found, strict=True):
            gradients[name] = _dense(part, name, updates[name])
    return gradients, sums


def _dense(
    gradients: Sequence[tf.Tensor | tf.IndexedSlices | None], name: str, update: Update
) -> list[tf.Tensor]:
    if all(gradient is None for gradient in gradients):
        raise UsageError(
            f"{update.loss!r} does not depend on any of the {len(gradients)} variables "
            f"of {name!r}: compute it with the model that is given to forward, by "
            "TensorFlow operations alone"
        )
    return [
        # An embedding look-up gives tf.IndexedSlices, the rows that were used only.
        tf.convert_to_tensor(tf.zeros_like(v) if gradient is None else gradient)
        for gradient, v in zip(gradients, update.variables, strict=True)
    ]


def _dtypes(updates: Mapping[str, Update], sums: Sums) -> list[tf.DType]:
    variables = [v for update in updates.values() for v in update.variables]
    found = [v.dtype for v in variables] + [value.dtype for value in sums.values()]
    return list(dict.fromkeys(found))


def _size(tensors: list[tf.Tensor]) -> int:
    return sum(tensor.shape.num_elements() for tensor in tensors)


def _quotient(vector: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
    """Divides by the sum of the weights; a sum of 0 gives zeros, not NaN."""
    if vector.dtype in (tf.float32, tf.float64):
        return tf.math.divide_no_nan(vector, tf.cast(divisor, vector.dtype))
    # The divisor could overflow in half precision.
    quotient = tf.math.divide_no_nan(tf.cast(vector, tf.float32), divisor)
    return tf.cast(quotient, vector.dtype)
