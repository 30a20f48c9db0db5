"""Trains in a process of its own, which ends in the middle of the second epoch."""

import os
import sys

import conftest  # noqa: F401 - sets the devices
from networks import batches, trainer

import lenet_tf
from lenet_tf.parallel import make_strategy


def end(moment: lenet_tf.Moment) -> None:
    if moment.step == 5:
        os._exit(7)


if __name__ == "__main__":
    trainer(make_strategy(2)).fit(
        batches(), epochs=3, saver=lenet_tf.Saver(sys.argv[1], steps=1), actions=[end]
    )
