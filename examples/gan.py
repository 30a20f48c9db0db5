"""A generative adversarial network of handwritten digits (Goodfellow et al., 2014).

    python examples/gan.py --workdir=runs/gan

The experiment is `updates` and `alternate`: each network minimizes its own loss with
its own optimizer, and in each step the critic learns first. At the end, `samples.png`
shows what the generator makes of noise, with the moving average of its weights.
"""

import argparse
import pathlib

import matplotlib.image
import numpy as np
import tensorflow as tf

import lenet_tf
from lenet_tf import Adam, Batches, Progress, Saver, Trainer, Update
from lenet_tf.nn import Conv2D, Dense, dropout, normal, scale_pixels
from lenet_tf.train import TrainState, all_finite, mean_gradients

NOISE, SIDE = 64, 6


class Networks(tf.Module):
    """A generator of digits, and a critic that tells them from real ones."""

    def __init__(self) -> None:
        super().__init__(name="networks")
        self.noise, self.verdict = Dense(NOISE, 3200, (0, 0)), Dense(512, 1, (1, 0))
        self.grow = [Conv2D(3, 32, 64, (0, 1)), Conv2D(3, 16, 4, (0, 2))]
        self.shrink = [Conv2D(3, 4, 16, (1, 1)), Conv2D(3, 64, 32, (1, 2))]

    def generate(self, batch: dict) -> tf.Tensor:
        """Returns digits [B, 28, 28, 1] in (-1, 1), which grow from 10x10 pixels."""
        x = tf.reshape(self.noise(normal(batch, [NOISE], salt=0)), [-1, 10, 10, 32])
        for conv in self.grow:
            x = tf.nn.depth_to_space(conv(tf.nn.relu(x)), 2)
        return tf.tanh(x)

    def judge(self, x: tf.Tensor, batch: dict, salt: int) -> tf.Tensor:
        """Returns logits [B], above 0 for what is taken for a real digit."""
        for conv in self.shrink:
            x = tf.nn.leaky_relu(conv(tf.nn.space_to_depth(x, 2)))
        x = dropout(batch, tf.reshape(x, [-1, 512]), 0.4, salt=salt)
        return self.verdict(x)[:, 0]


def forward(model: Networks, batch: dict, training: bool) -> dict:
    real = model.judge(2 * scale_pixels(batch["image"]) - 1, batch, salt=1)
    fake = model.judge(model.generate(batch), batch, salt=2)
    critic_loss = tf.nn.softplus(-real) + tf.nn.softplus(fake)
    return {"critic_loss": critic_loss, "generator_loss": tf.nn.softplus(-fake)}


def alternate(state: TrainState, batch: dict) -> tf.Tensor:
    vectors = []
    for name, update in state.updates.items():
        gradients, sums = mean_gradients(
            lambda part: forward(state.model, part, True), batch, {name: update}
        )
        update.apply(gradients[name], state.updates_done())
        vectors += gradients[name].values()
    state.average.update(state.updates_done())
    state.metrics.update(sums)
    return all_finite(*vectors)


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--workdir", type=pathlib.Path, default="runs/gan")
parser.add_argument("--epochs", type=int, default=12)
args = parser.parse_args()

strategy = lenet_tf.make_strategy("auto")
digits = Batches({"image": lenet_tf.load("mnist").train.image}, 64, seed=0)
with strategy.scope():
    model = Networks()
updates = {
    "critic": Update([model.verdict, *model.shrink], Adam(5e-4, 0.5), "critic_loss"),
    "generator": Update([model.noise, *model.grow], Adam(1e-3, 0.5), "generator_loss"),
}
trainer = Trainer(model, updates, forward, strategy=strategy, step=alternate, ema=0.995)
saver = Saver(args.workdir, best=None)
trainer.fit(digits, epochs=args.epochs, saver=saver, actions=[Progress()])

places = Batches({"place": np.arange(SIDE**2)}, SIDE**2)
samples = trainer.predict(places, Networks.generate).reshape(SIDE, SIDE, 28, 28)
grid = np.vstack([np.hstack(row) for row in samples])
matplotlib.image.imsave(args.workdir / "samples.png", -grid, cmap="gray")
