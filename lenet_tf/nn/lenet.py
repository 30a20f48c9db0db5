"""LeNet-5 and its variants.

    model = LeNet5(seed=0)
    logits = model(images)                # [B, 32, 32, 1] float32 -> [B, 10]
    probabilities = model.predict(images)

The layers have the names of figure 2 of LeCun, Bottou, Bengio and Haffner,
"Gradient-based learning applied to document recognition", Proc. IEEE 1998: convolutions
C1, C3, C5, subsamplings S2, S4, the fully connected F6 and the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import fast_ops
from lenet_tf.nn.activations import ACTIVATIONS
from lenet_tf.nn.images import IMAGE_SIZE
from lenet_tf.nn.layers import Conv2D, Dense, Subsample, glorot_uniform
from lenet_tf.nn.random import dropout

KERNELS = ("5x5", "two_3x3")
INITIALS = ("glorot", "undo_sigmoid")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class Convolution(tf.Module):
    """Convolution with a receptive field of 5x5 pixels, then the activation.

    Maps of [B, H, W, channels] become [B, H - 4, W - 4, filters].

    Args:
      kernel: Kind of kernel: "5x5", or "two_3x3" for two kernels of 3x3 with an
        activation between them.
      activation: Element-wise, non-decreasing function.
      channels: Number of channels of the input.
      filters: Number of channels of the output.
      seed: Seed of the initial kernels.
      name: Name of the layer, and prefix of its variables' names.
      undo_sigmoid: Whether the layer starts as if there were no sigmoid before it. Near
        0 a sigmoid is 1/2 + x/4, so the first kernel is Glorot's times 4, and its bias
        subtracts the sum of the halves.
    """

    def __init__(
        self,
        kernel: str,
        activation: Callable[[tf.Tensor], tf.Tensor],
        channels: int,
        filters: int,
        seed: tuple[int, int],
        name: str,
        undo_sigmoid: bool,
    ) -> None:
        super().__init__(name=name)
        self.activation = activation
        initializer = _four_times_glorot if undo_sigmoid else glorot_uniform
        if kernel == "5x5":
            self.convs = [Conv2D(5, channels, filters, seed, name, initializer)]
        else:
            inner_seed = (seed[0], seed[1] + 100)
            self.convs = [
                Conv2D(3, channels, filters, seed, f"{name}a", initializer),
                Conv2D(3, filters, filters, inner_seed, f"{name}b"),
            ]
        if undo_sigmoid:
            first = self.convs[0]
            first.b.assign(-tf.reduce_sum(first.w, axis=[0, 1, 2]) / 2)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves float maps [B, H, W, channels], and applies the activation."""
        for conv in self.convs:
            x = self.activation(conv(x))
        return x

    def subsampled(self, x: tf.Tensor, subsample: Subsample) -> tf.Tensor:
        """Computes `subsample(self(x))`, by a faster joint operation if possible."""
        # A subclass may have another __call__, which the joint form would leave out.
        joint = type(self) is Convolution and type(subsample) is Subsample
        if not joint or not fast_ops.fast():
            return subsample(self(x))
        *first, last = self.convs
        for conv in first:
            x = self.activation(conv(x))
        w, b = tf.cast(last.w, x.dtype), tf.cast(last.b, x.dtype)
        pooled = fast_ops.conv_pool(x, w, b, self.activation, subsample.pool)
        return subsample.after_pooling(pooled)


def _four_times_glorot(shape: Sequence[int], seed: tuple[int, int]) -> tf.Tensor:
    return 4 * glorot_uniform(shape, seed)


class LeNet5(tf.Module):
    """LeNet-5 with 61,706 parameters in 10 variables at the defaults.

    Args:
      num_classes: Number of classes, and so of logits.
      channels: Number of channels of the input images.
      activation: Name in `ACTIVATIONS` of the function after C1, C3, C5 and F6: "tanh",
        "relu" or "leaky_relu".
      subsampling: Kind of pooling of 2x2 windows: "average_sigmoid" (the mean, then a
        sigmoid), "average" or "max".
      kernel: Kind of kernel of each convolution: "5x5", or "two_3x3" for two of 3x3 in
        turn.
      initial: Kind of initial weights: "glorot", or "undo_sigmoid", where C3 and C5
        start as if there were no sigmoid before them, so that the model trains in fewer
        epochs (see `Convolution`).
      dropout: Share of F6's outputs that is set to zero in training, in [0, 1).
      precision: Precision of the arithmetic: "float32", "mixed_bfloat16" or
        "mixed_float16"; variables and logits are float32 with each.
      seed: Seed of the initial weights.

    Raises:
      UsageError: An option is not one of those listed, a number is out of range, or
        `initial` does not fit `subsampling`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 1,
        *,
        activation: str = "tanh",
        subsampling: str = "average_sigmoid",
        kernel: str = "5x5",
        initial: str = "glorot",
        dropout: float = 0.0,
        precision: str = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__(name="lenet5")
        _check_option("subsampling", subsampling, Subsample.KINDS)
        _check_option("kernel", kernel, KERNELS)
        _check_option("initial", initial, INITIALS)
        _check_option("precision", precision, PRECISIONS)
        if initial == "undo_sigmoid" and subsampling != "average_sigmoid":
            raise UsageError(
                f"initial is undo_sigmoid, but subsampling is {subsampling}, without a "
                "sigmoid: choose average_sigmoid, or initial glorot"
            )
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout is {dropout}: it must be in [0, 1)")
        if num_classes < 2 or channels < 1:
            raise UsageError(
                f"num_classes is {num_classes} and channels is {channels}: they must "
                "be at least 2 and 1"
            )
        self.num_classes, self.channels, self.dropout = num_classes, channels, dropout
        self.dtype = tf.as_dtype(precision.removeprefix("mixed_"))
        self.activation = ACTIVATIONS.get(activation)

        def convolution(
            inputs: int, filters: int, index: int, name: str
        ) -> Convolution:
            undo = initial == "undo_sigmoid" and name != "c1"
            seeds = (seed, index)
            return Convolution(
                kernel, self.activation, inputs, filters, seeds, name, undo
            )

        self.c1 = convolution(channels, 6, 1, "c1")
        self.s2 = Subsample(subsampling, "s2")
        self.c3 = convolution(6, 16, 3, "c3")
        self.s4 = Subsample(subsampling, "s4")
        self.c5 = convolution(16, 120, 5, "c5")
        self.f6 = Dense(120, 84, (seed, 6), "f6")
        self.output = Dense(84, num_classes, (seed, 7), "output")

    def __call__(
        self,
        images: tf.Tensor,
        training: bool = False,
        batch: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Computes the logits.

        Args:
          images: Images, float32 [B, 32, 32, channels] in [0, 1].
          training: Whether to apply dropout.
          batch: Batch that the images are from, with `position` and `seed`; dropout
            needs it, and nothing else does.

        Returns:
          float32 logits [B, num_classes].

        Raises:
          UsageError: The images are of another shape, or dropout has no batch.
        """
        images = tf.convert_to_tensor(images)
        expected = (IMAGE_SIZE, IMAGE_SIZE, self.channels)
        if images.shape.rank != 4 or tuple(images.shape[1:]) != expected:
            raise UsageError(
                f"the images are of shape {images.shape}: LeNet5 takes [batch, "
                f"{IMAGE_SIZE}, {IMAGE_SIZE}, {self.channels}]"
            )
        x = tf.cast(images, self.dtype)
        x = self.c1.subsampled(x, self.s2)  # [B, 14, 14, 6]
        x = self.c3.subsampled(x, self.s4)  # [B, 5, 5, 16]
        x = tf.reshape(self.c5(x), [-1, 120])  # [B, 1, 1, 120] -> [B, 120]
        x = self.activation(self.f6(x))
        if training and self.dropout:
            if batch is None:
                raise UsageError(
                    "dropout needs the batch, for its random numbers: call "
                    "model(images, training=True, batch=batch)"
                )
            x = dropout(batch, x, self.dropout, salt=0)
        return tf.cast(self.output(x), tf.float32)

    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the probabilities of the classes.

        Args:
          images: Images, float32 [B, 32, 32, channels] in [0, 1].

        Returns:
          float32 [B, num_classes], the softmax of the logits.
        """
        return tf.nn.softmax(self(images))

    def maps(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the maps of the convolutions and subsamplings, to look at them.

        Args:
          images: Images, float32 [B, 32, 32, channels] in [0, 1].

        Returns:
          Maps by the name of the layer: `c1` [B, 28, 28, 6], `s2` [B, 14, 14, 6], `c3`
          [B, 10, 10, 16] and `s4` [B, 5, 5, 16].
        """
        maps: dict[str, tf.Tensor] = {}
        x = tf.cast(images, self.dtype)
        layers: dict[str, Convolution | Subsample] = {
            "c1": self.c1,
            "s2": self.s2,
            "c3": self.c3,
            "s4": self.s4,
        }
        for name, layer in layers.items():
            x = maps[name] = layer(x)
        return maps

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Kernel and bias of each layer, from the input to the logits."""
        convs = [*self.c1.convs, *self.c3.convs, *self.c5.convs]
        layers: list[Conv2D | Dense] = [*convs, self.f6, self.output]
        return tuple(v for layer in layers for v in (layer.w, layer.b))


def _check_option(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}: choose one of {', '.join(allowed)}")
