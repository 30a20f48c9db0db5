"""A user's experiment, which the fault tests interrupt at every moment.

A model with dropout and a state of its own on random images. `--slow` draws out one
kind of moment and says on stderr when it begins, so that a test can strike there.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from absl import flags

import lenet_tf
from lenet_tf.cli import program
from lenet_tf.experiment.workdir import claim

_WORKDIR = flags.DEFINE_string("workdir", None, "", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", 3, "")
_STEPS_PER_LOOP = flags.DEFINE_integer("steps_per_loop", 2, "")
_NUM_REPLICAS = flags.DEFINE_integer("num_replicas", 1, "")
_SAVE_STEPS = flags.DEFINE_integer("save_steps", None, "")
_KEEP = flags.DEFINE_integer("keep", 3, "")
_BACKGROUND = flags.DEFINE_bool("background", False, "")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "")
_SLOW = flags.DEFINE_enum("slow", None, ["trace", "train", "evaluate", "save"], "")
_MENDED = flags.DEFINE_bool("mended", False, "")
_BAD_PIXEL = flags.DEFINE_float("bad_pixel", 0.5, "Of the last training example.")

EXAMPLES = 50
BATCH_SIZE = 8  # 7 steps an epoch, the last one ragged


def slow(what: str, seconds: float) -> None:
    """Says that a moment begins, and draws it out."""
    if _SLOW.value == what:
        print(f"in {what}", file=sys.stderr, flush=True)
        time.sleep(seconds)


def slow_op(what: str, x: tf.Tensor) -> tf.Tensor:
    """The same when the graph runs."""
    if _SLOW.value != what:
        return x

    def wait() -> np.ndarray:
        slow(what, 0.03)
        return np.zeros([], np.float32)

    with tf.control_dependencies([tf.numpy_function(wait, [], tf.float32)]):
        return tf.identity(x)


class Memory(tf.train.experimental.PythonState):
    """What a user's model saves along."""

    def serialize(self) -> str:
        slow("save", 0.15)
        return "remembered"

    def deserialize(self, string_value: bytes) -> None:
        assert string_value == b"remembered"


class Done:
    """Says which step is done and, where it was due, saved."""

    after_save = True

    def __call__(self, moment: lenet_tf.Moment) -> None:
        print("done", moment.step, file=sys.stderr)


class Network(tf.Module):
    """A hidden layer with dropout."""

    def __init__(self) -> None:
        super().__init__(name="network")
        self.hidden = lenet_tf.nn.Dense(36, 20, (0, 1), "hidden")
        self.output = lenet_tf.nn.Dense(20, 10, (0, 2), "output")
        self.memory = Memory()


def forward(
    model: Network, batch: Mapping[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """Loss, accuracy, and a sum that tells the order in which examples came."""
    if training:
        slow("trace", 0.2)
    x = tf.tanh(model.hidden(tf.reshape(batch["image"], [-1, 36])))
    order = tf.zeros_like(batch["weight"])
    if training:
        x = lenet_tf.dropout(batch, x, 0.4, salt=0)
        place = tf.cast(batch["seed"][1], tf.int32) * BATCH_SIZE + batch["position"]
        order = tf.cast(batch["index"] * place, tf.float32)
    logits = slow_op("train" if training else "evaluate", model.output(x))
    return {
        "loss": lenet_tf.softmax_cross_entropy(logits, batch["label"]),
        "accuracy": lenet_tf.correct(logits, batch["label"]),
        "order": order,
    }


def data() -> dict[str, np.ndarray]:
    """Random images, of which the last has the pixel that a test asks for."""
    rng = np.random.default_rng(0)
    images = rng.random([EXAMPLES, 6, 6], np.float32)
    images[-1, 0, 0] = _BAD_PIXEL.value
    return {
        "image": images,
        "label": rng.integers(0, 10, EXAMPLES, np.int32),
        "index": np.arange(EXAMPLES, dtype=np.int32),
    }


def main() -> None:
    strategy = lenet_tf.make_strategy(_NUM_REPLICAS.value)
    workdir, arrays = pathlib.Path(_WORKDIR.value), data()
    with strategy.scope():
        model = Network()
    trainer = lenet_tf.Trainer(
        model,
        lenet_tf.Adam(_LEARNING_RATE.value),
        forward,
        strategy=strategy,
        steps_per_loop=_STEPS_PER_LOOP.value,
        seed=4,
    )
    history = lenet_tf.train.HistoryFile(workdir / "history.csv")
    with claim(workdir, {"experiment": 1}, set()), lenet_tf.StopSignals() as stop:
        trainer.fit(
            lenet_tf.Batches(arrays, BATCH_SIZE, seed=3),
            epochs=_EPOCHS.value,
            validation=lenet_tf.Batches({k: v[:20] for k, v in arrays.items()}, 4),
            saver=lenet_tf.Saver(
                workdir,
                steps=_SAVE_STEPS.value,
                keep=_KEEP.value,
                background=_BACKGROUND.value,
            ),
            actions=[
                Done(),
                lenet_tf.at(lenet_tf.every_epoch(), history),
            ],
            poll=stop.check,
            data_changed=_MENDED.value,
        )


if __name__ == "__main__":
    program.run(main, __doc__)
