"""A Keras model or layer as a `tf.Module` that a `Trainer` trains.

    with strategy.scope():
        network = keras.Sequential([keras.Input([8]), keras.layers.Dense(1)])
        model = lenet_tf.keras.model(network)
    model(x, batch, training)             # in forward
    model(x)                              # inference, as in an export

Keras's `StatelessScope` records what the layers change in a call, such as moving
averages and seeds. The changes are then made or refused; see `changes`.
"""

from __future__ import annotations

import copy
import weakref
from typing import TypeAlias

import keras
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.keras.changes import (
    check_layer,
    check_losses,
    make_changes,
    make_copies_alike,
)
from lenet_tf.keras.layers import Batch, describe, make_exact, on_batch
from lenet_tf.keras.variables import checkpoint_keys, remember

Tensors: TypeAlias = "tf.Tensor | list[Tensors] | dict[str, Tensors]"


def model(keras_model: keras.Layer) -> KerasModel:
    """Makes a `tf.Module` of a Keras model or layer; see `KerasModel`.

    Args:
      keras_model: Model (`Sequential`, functional or subclassed) or layer whose
        variables exist, made in `strategy.scope()`.

    Raises:
      UsageError: It is not a Keras model or layer, has no variables yet, or has a part
        that cannot be exact.
    """
    return KerasModel(keras_model)


class KerasModel(tf.Module):
    """A Keras model or layer, trained by a `Trainer`.

    Freeze layers (`layer.trainable = False`) before it is wrapped: the trained
    variables are found only once.

    Args:
      keras_model: See `model`.

    Attributes:
      keras_model: As given. It shares its variables with this object, so its `save` and
        `get_weights` work on the trained weights.
      weights: Name in checkpoints -> variable.
    """

    # Otherwise a module that holds this one would find and train frozen variables.
    _TF_MODULE_IGNORED_PROPERTIES = frozenset(
        ("weights", *tf.Module._TF_MODULE_IGNORED_PROPERTIES)
    )

    keras_model: keras.Layer
    _layers: list[keras.Layer]
    _trained: list[keras.Variable]
    _of_a_step: list[tf.Variable]
    _penalized: list[keras.Variable]

    def __init__(self, keras_model: keras.Layer) -> None:
        if not isinstance(keras_model, keras.Layer):
            raise UsageError(
                f"model() is given a {type(keras_model).__name__}: give a keras.Model "
                "or a keras.Layer"
            )
        if not keras_model.built or not keras_model.variables:
            raise UsageError(
                f"{describe(keras_model)} has no variables yet: begin it with a "
                "keras.Input, or call it once, on one example, in strategy.scope()"
            )
        super().__init__(name="keras_model")
        layers = list(keras_model._flatten_layers(include_self=True, recursive=True))
        for layer in layers:
            check_layer(layer)
        make_exact(layers)
        trained = list(keras_model.trainable_variables)
        variables = list(keras_model.variables)
        remember(variables)
        make_copies_alike(variables)
        self.weights = {
            key: variable.value
            for key, variable in zip(checkpoint_keys(variables), variables, strict=True)
        }
        norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        moving = [v for norm in norms for v in norm.non_trainable_variables]
        self._all_reduced = {id(variable) for variable in moving}
        for variable in moving:
            if hasattr(variable.value, "values"):
                # Every replica assigns the same. Keras has no argument to say so.
                variable.value._aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
        ids = {id(variable) for variable in trained}
        _set_untracked(
            self,
            keras_model=keras_model,
            _layers=layers,
            _trained=trained,
            _penalized=[v for v in trained if v.regularizer is not None],
            # What a module that holds this one finds: all but what is frozen.
            _of_a_step=[
                v.value for v in variables if id(v) in ids or not v.value.trainable
            ],
        )
        self._penalty_is_used = False
        self._first_graph: weakref.ref[tf.Graph] | None = None

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """All variables, those of moving averages and random seeds included."""
        return tuple(self.weights.values())

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """The trainable variables of layers that are not frozen now."""
        return tuple(v.value for v in self.keras_model.trainable_variables)

    def __call__(
        self, x: Tensors, batch: Batch | None = None, training: bool = False
    ) -> Tensors:
        """Calls the Keras model.

        Args:
          x: What the Keras model takes: a tensor, a list or a dict of them.
          batch: Batch that x is from; required in training.
          training: Whether the call is for training.

        Returns:
          What the Keras model returns.

        Raises:
          UsageError: A layer draws numbers, changes variables or adds a loss in a way
            that would not be exact.
        """
        if training:
            self._check_training(batch)
        try:
            with (
                on_batch(batch if training else None),
                keras.StatelessScope(collect_losses=True) as scope,
            ):
                outputs = self.keras_model(x, training=training)
        except UsageError as error:
            raise _without_page(error) from None
        if batch is not None:
            check_losses(scope, self.keras_model)
        make_changes(scope, self._layers, self._all_reduced, training)
        return outputs

    def penalty(self) -> tf.Tensor:
        """Returns the sum of the regularizers of all trained weights, float32 scalar.

        Add it to the loss of each example: `{"loss": loss + model.penalty()}`.
        """
        self._penalty_is_used = True
        terms = [tf.cast(v.regularizer(v.value), tf.float32) for v in self._penalized]
        return tf.add_n([tf.zeros([]), *map(tf.reduce_sum, terms)])

    def __deepcopy__(self, memo: dict[int, object]) -> tf.Module:
        # For a checkpoint that is written in the background: the variables alone.
        twin = tf.Module(name=self.name)
        twin.weights = copy.deepcopy(self.weights, memo)
        return twin

    def _check_training(self, batch: Batch | None) -> None:
        if batch is None:
            raise UsageError(
                f"{describe(self.keras_model)} is trained without a batch: call "
                "model(x, batch, training)"
            )
        now = self.keras_model.trainable_variables
        if list(map(id, now)) != list(map(id, self._trained)):
            raise UsageError(
                f"layers of {describe(self.keras_model)} were frozen or made trainable "
                "after lenet_tf.keras.model() was called: call it again, and make "
                "another Trainer"
            )
        for variable in self._trained:
            if variable.constraint and not getattr(variable, "kept_in_bounds", False):
                raise UsageError(
                    f"{variable.path} has a constraint, which other optimizers do not "
                    "keep: take lenet_tf.keras.optimizer(keras.optimizers.Adam())"
                )
        if self._penalized and not self._penalty_is_used:
            # The first trace is a preview; in the second it must have been used.
            graph = weakref.ref(tf.compat.v1.get_default_graph())
            if self._first_graph is None:
                self._first_graph = graph
            elif self._first_graph() is not graph():
                raise UsageError(
                    f"{self._penalized[0].path} has a regularizer, which the loss "
                    "lacks: return loss + model.penalty() as the loss of each example"
                )


def _without_page(error: BaseException) -> BaseException:
    """Returns the error that a layer raised: Keras adds a page of text to its line."""
    while isinstance(error.__context__, UsageError):
        error = error.__context__
    return error


def _set_untracked(owner: tf.Module, **values: object) -> None:
    """Sets attributes that are not tracked, so that they add no keys to checkpoints."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)
