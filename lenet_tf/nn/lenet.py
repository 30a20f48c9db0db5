"""LeNet-5 and its variants.

    model = LeNet5(seed=0)
    logits = model(images)                # [B, 32, 32, 1] float32 -> [B, 10]
    probabilities = model.predict(images)

The layers bear the names of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning
applied to document recognition", Proc. IEEE 1998, figure 2: convolutions C1, C3, C5,
subsamplings S2, S4, the fully connected F6 and the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import fast_ops
from lenet_tf.nn.activations import ACTIVATIONS
from lenet_tf.nn.layers import Conv2D, Dense, Subsample
from lenet_tf.nn.random import dropout

IMAGE_SIZE = 32
KERNELS = ("5x5", "two_3x3")
INITIALS = ("glorot", "undo_sigmoid")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class Convolution(tf.Module):
    """A 5x5 receptive field, then the activation: [B, H, W, in] -> [B, H-4, W-4, out].

    Either one 5x5 kernel or two stacked 3x3 kernels with an activation between.
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
        if kernel == "5x5":
            self.convs = [Conv2D(5, channels, filters, seed, name, undo_sigmoid)]
        else:
            inner_seed = (seed[0], seed[1] + 100)
            self.convs = [
                Conv2D(3, channels, filters, seed, f"{name}a", undo_sigmoid),
                Conv2D(3, filters, filters, inner_seed, f"{name}b"),
            ]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves float32 maps [B, H, W, channels]."""
        for conv in self.convs:
            x = self.activation(conv(x))
        return x

    def subsampled(self, x: tf.Tensor, subsample: Subsample) -> tf.Tensor:
        """Computes `subsample(self(x))`, the faster for taking the two as one."""
        if not fast_ops.fast():
            return subsample(self(x))
        *first, last = self.convs
        for conv in first:
            x = self.activation(conv(x))
        w, b = tf.cast(last.w, x.dtype), tf.cast(last.b, x.dtype)
        pooled = fast_ops.conv_pool(x, w, b, self.activation, subsample.pool)
        return subsample.finish(pooled)


class LeNet5(tf.Module):
    """LeNet-5 with 61,706 parameters in 10 variables at the defaults.

    Args:
      num_classes: how many logits.
      channels: channels of the input images.
      activation: "tanh", "relu" or "leaky_relu", after every layer but the last.
      subsampling: "average_sigmoid" (mean of 2x2, then a sigmoid), "average", "max".
      kernel: "5x5", or "two_3x3" for two stacked 3x3 kernels in each convolution.
      initial: "glorot", the reference's initial weights, or "undo_sigmoid", where C3
        and C5 start from weights that undo the sigmoid before them (see `Conv2D`),
        which trains in fewer epochs.
      dropout: share of F6's outputs that is set to zero in training.
      precision: "float32", or "mixed_bfloat16" or "mixed_float16" for arithmetic in
        these; variables and logits are float32 all the same.
      seed: the initial weights are a pure function of it.

    Raises:
      UsageError: an option is not one of those listed.
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
            undo_sigmoid = initial == "undo_sigmoid" and name != "c1"
            layer_seed = (seed, index)
            return Convolution(
                kernel,
                self.activation,
                inputs,
                filters,
                layer_seed,
                name,
                undo_sigmoid,
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
          images: float32 [B, 32, 32, channels] in [0, 1].
          training: whether to drop out.
          batch: what keys the dropout; needed for nothing else.

        Returns:
          float32 logits [B, num_classes].

        Raises:
          UsageError: the images are of another shape.
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
                raise UsageError("dropout has no key: call model(..., batch=batch)")
            x = dropout(batch, x, self.dropout)
        return tf.cast(self.output(x), tf.float32)

    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Computes probabilities [B, num_classes] (softmax) of images as in a call."""
        return tf.nn.softmax(self(images))

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Kernel and bias of each layer, from the input to the logits."""
        convs = [*self.c1.convs, *self.c3.convs, *self.c5.convs]
        layers: list[Conv2D | Dense] = [*convs, self.f6, self.output]
        return tuple(v for layer in layers for v in (layer.w, layer.b))


def _check_option(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}: choose one of {', '.join(allowed)}")
