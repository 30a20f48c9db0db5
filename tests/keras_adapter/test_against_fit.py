"""Without dropout, a run on one replica is that of `model.fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from networks import data, network

import lenet_tf
import lenet_tf.keras

EPOCHS = 4
SGD = keras.optimizers.SGD
ADAM = keras.optimizers.Adam


def by_fit(optimizer: keras.optimizers.Optimizer) -> tuple[list, list]:
    reference, arrays = network(rate=0), data()
    reference.compile(optimizer, loss="mse")
    history = reference.fit(
        arrays["x"], arrays["y"], batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0
    )
    return history.history["loss"], reference.get_weights()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda: lenet_tf.keras.optimizer(SGD(0.05, momentum=0.9)),
            lambda: SGD(0.05, momentum=0.9),
        ),
        (lambda: lenet_tf.SGD(0.05, momentum=0.9), lambda: SGD(0.05, momentum=0.9)),
        (lambda: lenet_tf.keras.optimizer(ADAM(0.01)), lambda: ADAM(0.01)),
        (lambda: lenet_tf.Adam(0.01, epsilon=1e-7), lambda: ADAM(0.01)),
    ],
    ids=["SGD of Keras", "SGD of lenet_tf", "Adam of Keras", "Adam of lenet_tf"],
)
def test_weights_and_moving_averages_are_those_of_fit(ours, theirs) -> None:
    net = network(rate=0)
    trainer = lenet_tf.Trainer(
        lenet_tf.keras.model(net), ours(), lenet_tf.keras.forward("mse")
    )
    batches = lenet_tf.Batches(data(), 8)  # in order; the last batch has 6 examples
    history = trainer.fit(batches, epochs=EPOCHS)
    losses, weights = by_fit(theirs())
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    for a, b in zip(net.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
