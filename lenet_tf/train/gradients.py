"""The gradient of the mean loss of the global batch, the same on all replicas.

    gradients, sums = mean_gradients(compute, batch["weight"], state.updates)
    gradients["optimizer"]                # dtype -> vector of all its entries
    sums["loss"] / sums["weight"]         # the mean loss of the global batch

Each replica differentiates the weighted *sum* over its own examples. The sums and the
gradients are added up over the replicas, and only then divided by the sum of the
weights of the global batch: so every example counts once, and padding does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.optim.clipping import clip_by_norm
from lenet_tf.parallel.collectives import all_reduce_flat, flatten, unflatten
from lenet_tf.train.metrics import Sums, Values, weighted_sums
from lenet_tf.train.update import Update

# dtype -> one vector of the gradients of all variables of that dtype, so that the
# all-reduce, the division and the clipping are one operation, not one per variable.
Gradient = dict[tf.DType, tf.Tensor]


def mean_gradients(
    compute: Callable[[], Values],
    weight: tf.Tensor,
    updates: Mapping[str, Update],
    *,
    scale: tf.Tensor | None = None,
    jit_compile: bool = False,
) -> tuple[dict[str, Gradient], Sums]:
    """Computes the gradient of each update's mean loss over the global batch.

    Must be called in a replica context, by all replicas.

    Args:
      compute: Function that returns the values [B, ...] of this replica's examples by
        name, among them the loss [B] of every update.
      weight: Weights of the examples, float32 [B]; 0 for padding.
      updates: Updates by name; each has the variables to differentiate by and the name
        of its loss.
      scale: Factor of the losses, float32 scalar, that the gradients are divided by
        after the all-reduce (see `LossScale`); None does not scale.
      jit_compile: Whether XLA compiles `compute` and its gradient.

    Returns:
      Update name -> dtype -> vector of the gradients of the update's variables of that
      dtype, in their order; and the unscaled sums over the global batch, as from
      `weighted_sums`.

    Raises:
      UsageError: A loss is missing, or does not depend on any variable of its update.
    """

    def differentiate() -> tuple[dict[str, list[tf.Tensor]], Sums]:
        losses = {update.loss for update in updates.values()}
        with tf.GradientTape(persistent=len(updates) > 1) as tape:
            sums = weighted_sums(compute(), weight)
            missing = ", ".join(map(repr, losses - sums.keys()))
            if missing:
                raise UsageError(
                    f"there is no value {missing}, but {', '.join(map(repr, sums))}: "
                    "return the loss of every update"
                )
            targets = {
                loss: sums[loss] if scale is None else sums[loss] * scale
                for loss in losses
            }
        return {
            name: _gradients(tape, targets[update.loss], name, update)
            for name, update in updates.items()
        }, sums

    if jit_compile:
        differentiate = tf.function(differentiate, jit_compile=True, autograph=False)
    local, local_sums = differentiate()

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


def clipped(gradient: Gradient, clip_norm: float | None) -> Gradient:
    """Scales a gradient to a global norm of at most `clip_norm`; None does not clip."""
    if clip_norm is None:
        return gradient
    if len(gradient) == 1:
        ((dtype, vector),) = gradient.items()
        return {dtype: clip_by_norm(vector, clip_norm)}
    sizes = [vector.shape[0] for vector in gradient.values()]
    whole = [tf.cast(vector, tf.float64) for vector in gradient.values()]
    parts = tf.split(clip_by_norm(tf.concat(whole, axis=0), clip_norm), sizes)
    return {
        dtype: tf.cast(part, dtype) for dtype, part in zip(gradient, parts, strict=True)
    }


def _gradients(
    tape: tf.GradientTape, loss: tf.Tensor, name: str, update: Update
) -> list[tf.Tensor]:
    found = tape.gradient(loss, update.variables)
    if all(gradient is None for gradient in found):
        raise UsageError(
            f"{update.loss!r} does not depend on any of the {len(found)} variables of "
            f"{name!r}: compute it with the model that is given to forward, by "
            "TensorFlow operations alone"
        )
    return [
        # An embedding look-up gives tf.IndexedSlices, the rows that were used only.
        tf.convert_to_tensor(tf.zeros_like(v) if gradient is None else gradient)
        for gradient, v in zip(found, update.variables, strict=True)
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
