"""Layers of Keras that depend on the rest of the batch, or on chance, made exact.

    make_exact(layers)                    # changes how these layers are computed ...
    with on_batch(batch):                 # ... but only here
        logits = keras_model(images, training=True)

`BatchNormalization` computes its moments from the examples of the global batch whose
weight is above 0. Layers such as `Dropout` draw numbers that depend only on the seed,
the step and the example. Outside of `on_batch`, as in Keras's own `fit`, the layers
compute as usual. Their class, configuration, weights and saved form do not change.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from lenet_tf.data.batches import WEIGHT
from lenet_tf.errors import UsageError
from lenet_tf.nn.random import POSITION, normal, uniform
from lenet_tf.parallel.collectives import all_reduce_sum

Batch = Mapping[str, tf.Tensor]

_FIRST_SALT = 0x6B657261  # "kera": far from the salts that users choose

# The batch that a model is computed on, and the graph in which that happens.
_current: contextvars.ContextVar[tuple[Batch, tf.Graph] | None] = (
    contextvars.ContextVar("batch", default=None)
)


@contextlib.contextmanager
def on_batch(batch: Batch | None) -> Iterator[None]:
    """Lets layers made exact compute on this batch; None leaves them to Keras."""
    graph = tf.compat.v1.get_default_graph()
    token = _current.set(None if batch is None else (batch, graph))
    try:
        yield
    finally:
        _current.reset(token)


def make_exact(layers: Sequence[keras.Layer]) -> None:
    """Makes the layers exact within `on_batch`, where there is a rule for them."""
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            _replace(layer, "_moments", _moments)
        rule = _RULES.get(type(layer).call)
        if rule is not None:
            _replace(layer, "call", rule)


def _replace(layer: keras.Layer, method: str, rule: Callable[..., object]) -> None:
    """Replaces a method of this one layer by a rule, unless that was done before."""
    original = getattr(layer, method)
    if method in vars(layer):
        return

    def exact_or_original(inputs: tf.Tensor, *args: object, **kwargs: object) -> object:
        current = _current.get()
        if current is None:
            return original(inputs, *args, **kwargs)
        batch, graph = current
        if tf.compat.v1.get_default_graph() is not graph:
            raise UsageError(
                f"{describe(layer)} is called in a loop or function within the model, "
                "where its numbers would not be exact: call it outside of that"
            )
        if WEIGHT not in batch:
            raise UsageError(
                f"{describe(layer)} needs the batch that forward was given, with "
                f"{WEIGHT!r}: call model(x, batch, training)"
            )
        if inputs.shape[0] != batch[WEIGHT].shape[0]:
            raise UsageError(
                f"{describe(layer)} gets {inputs.shape[0]} rows for a batch of "
                f"{batch[WEIGHT].shape[0]} examples: its first axis must be theirs"
            )
        return rule(layer, batch, inputs, *args, **kwargs)

    vars(layer)[method] = exact_or_original


def describe(layer: keras.Layer) -> str:
    """Returns the class and the name of a layer, for messages."""
    return f"{type(layer).__name__} {layer.name!r}"


def _moments(
    layer: keras.layers.BatchNormalization,
    batch: Batch,
    x: tf.Tensor,
    mask: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and variance of the global batch, one of each for a channel."""
    channels = layer.axis % x.shape.rank
    axes = [axis for axis in range(x.shape.rank) if axis != channels]
    real = tf.reshape(batch[WEIGHT] > 0, [-1] + [1] * (x.shape.rank - 1))
    if mask is not None:
        real &= tf.cast(mask, tf.bool)[..., None]
    real = tf.broadcast_to(real, tf.shape(x))
    zero = tf.zeros([], x.dtype)
    sums = [tf.cast(real, x.dtype), tf.where(real, x, zero)]
    try:
        count, total = all_reduce_sum([tf.reduce_sum(each, axes) for each in sums])
    except RuntimeError as error:  # from within a function of its own graph
        raise UsageError(
            f"{describe(layer)} needs sums over all replicas, which the trainer cannot "
            "compute with micro_batches or jit_compile: use neither, or freeze the "
            "layer (trainable = False), which then uses its moving averages"
        ) from error
    mean = tf.math.divide_no_nan(total, count)
    shape = [-1 if axis == channels else 1 for axis in range(x.shape.rank)]
    difference = tf.where(real, x - tf.reshape(mean, shape), zero)
    (total,) = all_reduce_sum([tf.reduce_sum(difference**2, axes)])
    return mean, tf.math.divide_no_nan(total, count)


class _Draws(threading.local):
    """Counts the draws of a step, so that no two of them have the same salt.

    A step has one tensor of positions on each replica, however many models it calls.
    """

    position: weakref.ref[tf.Tensor] | None = None
    count = 0

    def next_salt(self, batch: Batch) -> int:
        position = batch.get(POSITION)
        if position is not None and (
            not self.position or self.position() is not position
        ):
            self.position, self.count = weakref.ref(position), 0
        self.count += 1
        return _FIRST_SALT + self.count


_draws = _Draws()


def _uniform(batch: Batch, shape: Sequence[int]) -> tf.Tensor:
    return uniform(batch, shape, salt=_draws.next_salt(batch))


def _normal(batch: Batch, shape: Sequence[int]) -> tf.Tensor:
    return normal(batch, shape, salt=_draws.next_salt(batch))


def _kept(
    layer: keras.Layer, batch: Batch, x: tf.Tensor, shape: Sequence[int | None] | None
) -> tf.Tensor:
    """Returns which numbers of x a kind of dropout keeps, bool, broadcast to x."""
    if not layer.rate < 1:
        raise UsageError(f"the rate of {describe(layer)} is 1: give less than 1")
    first, *rest = shape or [None] * x.shape.rank
    if first not in (None, x.shape[0]):
        raise UsageError(
            f"the noise_shape of {describe(layer)} is {shape}: its first entry must be "
            "None, as each example draws its own numbers"
        )
    sizes = [d if n is None else n for n, d in zip(rest, x.shape[1:], strict=True)]
    return _uniform(batch, sizes) >= layer.rate


def _dropout(
    layer: keras.layers.Dropout, batch: Batch, x: tf.Tensor, training: bool = False
) -> tf.Tensor:
    if not training or layer.rate <= 0:
        return x
    shape = layer.noise_shape
    if isinstance(layer, _SPATIAL):  # all places of a channel are kept, or none
        shape = [1] * x.shape.rank
        shape[0] = None
        channels = 1 if getattr(layer, "data_format", "") == "channels_first" else -1
        shape[channels] = None
    kept = _kept(layer, batch, x, shape)
    return tf.where(kept, x / (1.0 - layer.rate), tf.zeros([], x.dtype))


def _alpha_dropout(
    layer: keras.layers.AlphaDropout, batch: Batch, x: tf.Tensor, training: bool = False
) -> tf.Tensor:
    """Source: Klambauer et al., "Self-normalizing neural networks", NIPS 2017."""
    if not training or layer.rate <= 0:
        return x
    kept = _kept(layer, batch, x, layer.noise_shape)
    dropped = -1.6732632423543772 * 1.0507009873554805  # limit of SELU at -infinity
    scale = ((1 - layer.rate) * (1 + layer.rate * dropped**2)) ** -0.5
    shift = -scale * dropped * layer.rate
    return scale * tf.where(kept, x, tf.constant(dropped, x.dtype)) + shift


def _gaussian_noise(
    layer: keras.layers.GaussianNoise,
    batch: Batch,
    x: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    if not training or layer.stddev <= 0:
        return x
    return x + tf.cast(layer.stddev * _normal(batch, x.shape[1:]), x.dtype)


def _gaussian_dropout(
    layer: keras.layers.GaussianDropout,
    batch: Batch,
    x: tf.Tensor,
    training: bool = False,
) -> tf.Tensor:
    if not training or layer.rate <= 0:
        return x
    stddev = math.sqrt(layer.rate / (1.0 - layer.rate))
    return x * tf.cast(1.0 + stddev * _normal(batch, x.shape[1:]), x.dtype)


_SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# By the method itself: a subclass that computes something else has another one.
_RULES: dict[Callable[..., object], Callable[..., object]] = {
    keras.layers.Dropout.call: _dropout,
    keras.layers.SpatialDropout1D.call: _dropout,
    keras.layers.SpatialDropout2D.call: _dropout,
    keras.layers.SpatialDropout3D.call: _dropout,
    keras.layers.AlphaDropout.call: _alpha_dropout,
    keras.layers.GaussianNoise.call: _gaussian_noise,
    keras.layers.GaussianDropout.call: _gaussian_dropout,
}
