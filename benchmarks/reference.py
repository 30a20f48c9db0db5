"""The reference: the tutorial's LeNet in Keras, which this library is held against."""

from __future__ import annotations

from typing import Any


def keras_lenet(steps_per_execution: int = 1, jit_compile: bool = False) -> Any:
    """Makes the reference network of 61,706 parameters, compiled with Adam at 1e-3.

    Args:
      steps_per_execution: how many steps Keras makes between two looks by Python.
      jit_compile: whether XLA compiles the step.

    Returns:
      A `keras.Model` of images [B, 32, 32, 1] and integer labels [B].
    """
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input([32, 32, 1]),
            layers.Conv2D(6, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Activation("sigmoid"),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Activation("sigmoid"),
            layers.Conv2D(120, 5, activation="tanh"),
            layers.Flatten(),
            layers.Dense(84, activation="tanh"),
            layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    return model
