"""Which variables an optimizer changes, by the gradient of which loss.

    Update(model, Adam(1e-3))                                   # the usual case
    {
        "critic": Update(model.critic, Adam(1e-4), loss="critic_loss"),
        "generator": Update(model.generator, Adam(1e-4), loss="generator_loss"),
    }
    {"top": Update([model.block, model.head, model.scale], SGD(1e-2))}

A variable that is in no update does not change: that is how layers are frozen.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.optim.clipping import clip_by_norm
from lenet_tf.parallel.collectives import unflatten

Target: TypeAlias = tf.Module | Sequence[tf.Module | tf.Variable]


# dtype -> one vector of the gradients of all variables of that dtype, so that the
# all-reduce, the division and the clipping are one operation, not one per variable.
Gradient: TypeAlias = dict[tf.DType, tf.Tensor]


class Rule(Protocol):
    """The methods that an optimizer needs; those of `lenet_tf.optim` have them."""

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the slots for these variables, before the first step."""

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        step: tf.Tensor,
    ) -> None:
        """Changes this replica's copies; see `lenet_tf.optim.Optimizer.apply`."""


class Update:
    """An optimizer, the variables that it changes, and the loss that it minimizes.

    Args:
      target: Module whose trainable variables are changed, or a list of modules and
        variables.
      optimizer: Optimizer, which no other update may share.
      loss: Name of the per-example value whose weighted mean is minimized.
      clip_norm: Largest global norm of this update's gradient; None does not clip.

    Attributes:
      variables: Variables that the target had when the update was made.

    Raises:
      UsageError: There are no variables, some are not `tf.Variable`s, the optimizer has
        no `build` and `apply`, or `clip_norm` is not above 0.
    """

    def __init__(
        self,
        target: Target,
        optimizer: Rule,
        loss: str = "loss",
        clip_norm: float | None = None,
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise UsageError(f"clip_norm is {clip_norm}: it must be above 0")
        for method in ("build", "apply"):
            if not callable(getattr(optimizer, method, None)):
                raise UsageError(
                    f"optimizer is {optimizer!r}, which has no {method}(): give one of "
                    f"lenet_tf.optim, such as Adam(1e-3){_if_keras(optimizer)}"
                )
        try:
            inspect.signature(optimizer.apply).bind([], [], None)
        except TypeError as error:
            raise UsageError(
                f"optimizer is a {type(optimizer).__name__}, whose apply() does not "
                "take (gradients, variables, step): give one of lenet_tf.optim"
                f"{_if_keras(optimizer)}"
            ) from error
        self._target = target
        self.optimizer, self.loss, self.clip_norm = optimizer, loss, clip_norm
        self.variables = _trainable(target)
        for variable in self.variables:
            if not isinstance(variable, tf.Variable):
                raise UsageError(
                    f"{getattr(variable, 'name', variable)} is a "
                    f"{type(variable).__name__}: what is trained must be tf.Variables; "
                    "a layer of Keras is wrapped by lenet_tf.keras.model(layer)"
                )
        if not self.variables:
            name = getattr(target, "name", "the list")
            raise UsageError(
                f"{name} has no trainable variables: a model that makes them at its "
                "first call must be called once, on one example, in strategy.scope()"
            )

    def check_unchanged(self) -> None:
        """Raises UsageError if the target's trainable variables have changed."""
        now = _trainable(self._target)
        if [id(v) for v in now] != [id(v) for v in self.variables]:
            raise UsageError(
                f"the trainable variables are {_names(now)}, but they were "
                f"{_names(self.variables)} when the trainer was made: make another "
                "Trainer, or name the variables in an Update"
            )

    def apply(self, gradient: Gradient, step: tf.Tensor) -> None:
        """Clips a gradient to `clip_norm`, and applies it to this replica's copies.

        Args:
          gradient: Gradient from `mean_gradients`, the same on all replicas.
          step: Number of updates made before, int64 scalar.
        """
        parts: dict[int, tf.Tensor] = {}
        for dtype, vector in _clipped(gradient, self.clip_norm).items():
            alike = [v for v in self.variables if v.dtype == dtype]
            for variable, part in zip(alike, unflatten(vector, alike), strict=True):
                parts[id(variable)] = part
        ordered = [parts[id(variable)] for variable in self.variables]
        self.optimizer.apply(ordered, self.variables, step)


def _clipped(gradient: Gradient, clip_norm: float | None) -> Gradient:
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


def _trainable(target: Target) -> tuple[tf.Variable, ...]:
    """Returns the variables in order, each once, also if two modules share it."""
    try:
        parts = [target] if hasattr(target, "trainable_variables") else target
        lists = [getattr(part, "trainable_variables", [part]) for part in parts]
    except ValueError:  # Sonnet's, if a module has not been called yet
        return ()
    found = [variable for part in lists for variable in part]
    return tuple({id(variable): variable for variable in found}.values())


def _if_keras(optimizer: object) -> str:
    wrapped = ", or lenet_tf.keras.optimizer(it)"
    return wrapped if type(optimizer).__module__.startswith("keras.") else ""


def _names(variables: Sequence[tf.Variable]) -> str:
    return ", ".join(v.name.split(":")[0] for v in variables) or "none"


def distinct_variables(updates: Mapping[str, Update]) -> tuple[tf.Variable, ...]:
    """Returns the variables of all updates, in their order.

    Raises:
      UsageError: There is no update, or two of them share a variable or an optimizer.
    """
    if not updates:
        raise UsageError("there are no updates: give an optimizer, or name -> Update")
    variables: dict[int, tf.Variable] = {}
    optimizers: set[int] = set()
    for name, update in updates.items():
        if not isinstance(update, Update):
            raise UsageError(
                f"{name!r} is a {type(update).__name__}: give Update(model, optimizer)"
            )
        for variable in update.variables:
            if id(variable) in variables:
                raise UsageError(
                    f"{variable.name} is in the update {name!r} and in another: each "
                    "variable can be in one"
                )
            variables[id(variable)] = variable
        if id(update.optimizer) in optimizers:
            raise UsageError(
                f"the update {name!r} has the optimizer of another: make each its own"
            )
        optimizers.add(id(update.optimizer))
    return tuple(variables.values())
