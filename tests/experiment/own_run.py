"""A user's own experiment in a run directory, for the tests to stop and to kill."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

import lenet_tf

WORKDIR, REPLICAS = pathlib.Path(sys.argv[1]), int(os.environ.get("REPLICAS", "1"))
SLOW = float(os.environ.get("SLOW", "0"))  # seconds after each inner loop
settings = {"rate": 0.01, "epochs": int(os.environ.get("EPOCHS", "3")), "sizes": (4, 1)}


class Net(tf.Module):
    """A hidden layer with batch normalization and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = lenet_tf.nn.Dense(3, 4, (0, 1))
        self.norm = lenet_tf.nn.BatchNorm(4)
        self.output = lenet_tf.nn.Dense(4, 1, (0, 2))


def forward(model: Net, batch: dict, training: bool) -> dict:
    x = tf.tanh(model.norm(model.hidden(batch["x"]), batch, training))
    if training:
        x = lenet_tf.dropout(batch, x, 0.3, salt=0)
    error = model.output(x)[:, 0] - batch["y"]
    return {"loss": error**2, "mae": tf.abs(error)}


def wait(moment: lenet_tf.Moment) -> None:
    """Draws out the run."""
    print("at", moment.step, file=sys.stderr, flush=True)
    time.sleep(SLOW)


x = np.random.default_rng(0).normal(size=[40, 3]).astype(np.float32)
data = {"x": x, "y": x.sum(1)}
cpus = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], cpus
)
strategy = lenet_tf.make_strategy(REPLICAS)
with lenet_tf.Workdir(WORKDIR, settings, free={"epochs"}, strategy=strategy) as run:
    if run.result is None:
        with strategy.scope():
            model = Net()
        trainer = lenet_tf.Trainer(
            model,
            lenet_tf.Adam(settings["rate"]),
            forward,
            strategy=strategy,
            steps_per_loop=2,
            ema=0.9,
        )
        run.fit(
            trainer,
            lenet_tf.Batches(data, 6, seed=1),
            epochs=settings["epochs"],
            validation=lenet_tf.Batches(data, 16),
            saver=lenet_tf.Saver(WORKDIR, steps=2),
            actions=[wait],
        )
        test = trainer.evaluate(lenet_tf.Batches(data, 16))
        run.write_result({"test_loss": test["loss"], "mean": x.mean(0)})
print(json.dumps(run.result))
