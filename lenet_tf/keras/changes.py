"""The changes that a call of a Keras model makes: kept if exact, refused otherwise.

    with keras.StatelessScope(collect_losses=True) as scope:
        outputs = keras_model(x, training=True)        # changes nothing, but records it
    make_changes(scope, layers, all_reduced, training=True)

Variables of a user's own layers are checked by the trainer, as in any other model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.keras.layers import describe
from lenet_tf.parallel.collectives import local_assign

_COMBINED = (tf.VariableAggregation.MEAN, tf.VariableAggregation.SUM)


def make_changes(
    scope: keras.StatelessScope,
    layers: Sequence[keras.Layer],
    all_reduced: Collection[int],
    training: bool,
) -> None:
    """Makes the changes of variables that a call has recorded.

    Args:
      scope: Scope of the call.
      layers: The model and all layers in it.
      all_reduced: Ids of the variables whose new values are the same on all replicas.
      training: Whether the call was for training.

    Raises:
      UsageError: Random numbers were drawn from a generator with a state, a variable
        was changed outside of training, or a changed variable is in none of the layers.
    """
    changed = dict(scope.state_mapping)
    for layer in layers:
        for generator in layer._seed_generators:
            if changed.pop(id(generator.state), None) is not None:
                raise UsageError(
                    f"{describe(layer)} draws random numbers that would differ between "
                    "replicas and after a resume: leave it out, and draw with "
                    "lenet_tf.nn.uniform(batch, ...) in forward"
                )
    for variable in layers[0].variables:
        value = changed.pop(id(variable), None)
        if value is None:
            continue
        if not training:
            raise UsageError(
                f"{variable.path} is changed outside of training: make its layer "
                "stateless, or change it only `if training`"
            )
        combined = variable.value.aggregation in _COMBINED
        if combined and id(variable) not in all_reduced:
            variable.value.assign(value)  # combines what the replicas assign
        else:
            local_assign(variable.value, value)
    if changed:
        raise UsageError(
            f"{describe(layers[0])} draws from Keras's global random generator, or "
            "changes a variable that is in none of its layers: draw with "
            "lenet_tf.nn.uniform(batch, ...) in forward"
        )


def check_losses(scope: keras.StatelessScope, model: keras.Layer) -> None:
    """Raises UsageError if a layer has added a loss of its own in a call."""
    if scope.losses:
        raise UsageError(
            f"a layer of {describe(model)} adds a loss of its own (add_loss or "
            "activity_regularizer), a mean that counts padding: compute it for each "
            "example in forward"
        )


def make_copies_alike(variables: Sequence[keras.Variable]) -> None:
    """Copies the first replica's values to all: after Keras's `fit` they may differ."""
    for variable in variables:
        first, *others = getattr(variable.value, "values", (variable.value,))
        for other in others:
            other.assign(first)


def check_layer(layer: keras.Layer) -> None:
    """Raises UsageError for a layer that cannot be exact however it is called."""
    if getattr(layer, "stateful", False):
        raise UsageError(
            f"{describe(layer)} keeps a state from one batch to the next, but batches "
            "are shuffled and divided among replicas: make it with stateful=False"
        )
    if getattr(layer, "_remat_mode", None):
        raise UsageError(
            f"{describe(layer)} is computed twice (remat), the second time without "
            "the batch: make it without RematScope, and give the Trainer micro_batches"
        )
