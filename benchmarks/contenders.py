"""The training programs that are timed against each other, each a process of its own.

    python benchmarks/contenders.py --program=keras --batch_size=64

Trains the reference network on MNIST with Adam at 1e-3. Says "ready" when it is warm;
then trains once more for each line it is sent, and answers with the seconds an epoch.
Processes of their own, since devices and threads are fixed when TensorFlow starts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags
from reference import keras_lenet

import lenet_tf
from lenet_tf.cli import program
from lenet_tf.nn.lenet import PRECISIONS

_PROGRAM = flags.DEFINE_enum(
    "program", "lenet_tf", ["lenet_tf", "keras", "torch"], "Library that trains."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Number of examples in a batch.", lower_bound=1
)
_REPLICAS = flags.DEFINE_string(
    "num_replicas", "auto", "Number of lenet_tf's replicas; auto takes all cores."
)
_PLAIN = flags.DEFINE_bool(
    "plain", False, "Whether lenet_tf does without its fast forms."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", list(PRECISIONS), "Number format of lenet_tf's arithmetic."
)
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the step.")
_STEPS = flags.DEFINE_integer(
    "steps_per_execution",
    1,
    "Keras's steps between two looks by Python.",
    lower_bound=1,
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 58_000, "Number of examples in an epoch.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 1, "Number of epochs in a call of fit.", lower_bound=1
)
_HAND_MADE = flags.DEFINE_bool(
    "hand_made", False, "Whether Keras gets batches as lenet_tf makes them."
)

Fit = Callable[[], object]


def arrays(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's training images and labels, over again when more are asked for."""
    train = lenet_tf.load("mnist", validation_examples=0).train
    index = np.arange(examples) % len(train)
    return train.image[index], train.label[index]


def fit_lenet_tf() -> Fit:
    strategy = lenet_tf.make_strategy(_REPLICAS.value, "mirrored")
    image, label = arrays(_EXAMPLES.value)
    batches = lenet_tf.Batches(
        {"image": image, "label": label}, _BATCH_SIZE.value, seed=0
    )
    with strategy.scope():
        model = lenet_tf.LeNet5(precision=_PRECISION.value)
    trainer = lenet_tf.Trainer(
        model,
        lenet_tf.Adam(1e-3),
        strategy=strategy,
        jit_compile=_JIT.value,
        loss_scaling=_PRECISION.value == "mixed_float16",
    )
    epochs = 0

    def fit() -> None:
        nonlocal epochs
        epochs += _EPOCHS.value
        trainer.fit(batches, epochs=epochs, progress=False)

    if _PLAIN.value:
        with lenet_tf.nn.fast_ops.plain_forms():
            fit()
    return fit


def fit_keras() -> Fit:
    model = keras_lenet(_STEPS.value, _JIT.value)
    image, label = arrays(_EXAMPLES.value)
    # Padded and scaled beforehand, which is not counted.
    image = lenet_tf.standardize(image).numpy()
    size, epochs = _BATCH_SIZE.value, _EPOCHS.value
    if _HAND_MADE.value:
        dataset = hand_made(image, label)
        return lambda: model.fit(dataset, epochs=epochs, verbose=0)
    return lambda: model.fit(image, label, size, epochs, verbose=0)


def hand_made(image: np.ndarray, label: np.ndarray) -> tf.data.Dataset:
    """Batches by one gather each and without tf.data's tuner, as lenet_tf makes them.

    With arrays the end of each epoch waits for that tuner, for up to as long as the
    epoch has taken.
    """
    images, labels, examples = tf.constant(image), tf.constant(label), len(label)

    def order(_: tf.Tensor) -> tf.data.Dataset:
        index = tf.random.shuffle(tf.range(examples))
        return tf.data.Dataset.from_tensor_slices(index).batch(_BATCH_SIZE.value)

    dataset = tf.data.Dataset.range(1).flat_map(order)
    dataset = dataset.map(
        lambda index: (tf.gather(images, index), tf.gather(labels, index))
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.prefetch(8).with_options(options)
    batches = -(-examples // _BATCH_SIZE.value)
    return dataset.apply(tf.data.experimental.assert_cardinality(batches))


def fit_torch() -> Fit:
    import torch
    from torch import nn

    torch.set_num_threads(os.cpu_count() or 1)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Sigmoid()),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Sigmoid()),
        *(nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten()),
        *(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_of = nn.CrossEntropyLoss()
    image, label = arrays(_EXAMPLES.value)
    images = torch.tensor(lenet_tf.standardize(image).numpy()).permute(0, 3, 1, 2)
    images, labels = images.contiguous(), torch.tensor(label.astype(np.int64))

    def fit() -> None:
        for _ in range(_EPOCHS.value):
            for index in torch.randperm(len(labels)).split(_BATCH_SIZE.value):
                optimizer.zero_grad(set_to_none=True)
                loss_of(model(images[index]), labels[index]).backward()
                optimizer.step()

    return fit


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    programs = {"lenet_tf": fit_lenet_tf, "keras": fit_keras, "torch": fit_torch}
    fit = programs[_PROGRAM.value]()
    fit()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        fit()
        print((time.perf_counter() - began) / _EPOCHS.value, flush=True)


if __name__ == "__main__":
    program.run(main, __doc__)
