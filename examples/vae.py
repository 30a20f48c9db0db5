"""A variational autoencoder of handwritten digits (Kingma and Welling, 2014).

    python examples/vae.py --workdir=runs/vae --epochs=20

The experiment is the function `forward`: a code is drawn with `lenet_tf.nn.normal`, so
that a resumed run draws the same one, and the loss is the sum of two terms, which are
returned as metrics as well. At the end, `vae.png` shows digits of the test split above
their reconstructions, and digits that are decoded from random codes.
"""

import argparse
import pathlib

import matplotlib.image
import numpy as np
import tensorflow as tf

import lenet_tf
from lenet_tf.checkpoint import find_checkpoint, restore_model
from lenet_tf.nn import Dense, normal, scale_pixels

CODE, COLUMNS = 16, 16


class Autoencoder(tf.Module):
    """Encodes pixels [B, 784] to a random code, and decodes it."""

    def __init__(self) -> None:
        super().__init__(name="autoencoder")
        self.encoder = Dense(784, 400, (0, 0), "encoder")
        self.code = Dense(400, 2 * CODE, (0, 1), "code")
        self.decoder = Dense(CODE, 400, (0, 2), "decoder")
        self.pixels = Dense(400, 784, (0, 3), "pixels")

    def encode(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mean and log-variance of the codes, [B, CODE] each."""
        return tf.split(self.code(tf.nn.relu(self.encoder(x))), 2, axis=1)

    def decode(self, code: tf.Tensor) -> tf.Tensor:
        """Returns the logits of the pixels, [B, 784]."""
        return self.pixels(tf.nn.relu(self.decoder(code)))


def forward(model: Autoencoder, batch: dict, training: bool) -> dict:
    x = tf.reshape(scale_pixels(batch["image"]), [-1, 784])
    mean, log_variance = model.encode(x)
    code = mean + tf.exp(log_variance / 2) * normal(batch, [CODE], salt=1)
    error = tf.nn.sigmoid_cross_entropy_with_logits(x, model.decode(code))
    reconstruction = tf.reduce_sum(error, axis=1)
    kl = tf.reduce_sum(tf.exp(log_variance) + mean**2 - 1 - log_variance, axis=1) / 2
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def pictures(model: Autoencoder, batch: dict) -> dict:
    """Returns each digit, its reconstruction, and a digit of a random code."""
    x = tf.reshape(scale_pixels(batch["image"]), [-1, 784])
    drawn = model.decode(normal(batch, [CODE], salt=2))
    again = model.decode(model.encode(x)[0])
    return {"digit": x, "again": tf.sigmoid(again), "random": tf.sigmoid(drawn)}


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--workdir", type=pathlib.Path, default="runs/vae")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--examples", type=int, help="train on the first N only")
args = parser.parse_args()

strategy = lenet_tf.make_strategy("auto")
splits = lenet_tf.load("mnist")
train = {"image": splits.train.image[: args.examples]}
with strategy.scope():
    model = Autoencoder()
trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), forward, strategy=strategy)
trainer.fit(
    lenet_tf.Batches(train, batch_size=128, seed=0),
    epochs=args.epochs,
    validation=lenet_tf.Batches({"image": splits.validation.image}, 500),
    saver=lenet_tf.Saver(args.workdir, best="val_loss"),
    actions=[lenet_tf.Progress(metrics=["loss", "val_loss", "val_kl"])],
)
restore_model(model, find_checkpoint(args.workdir, "best"))
test = lenet_tf.Batches({"image": splits.test.image}, 500)
print("test:", trainer.evaluate(test))

few = lenet_tf.Batches({"image": splits.test.image[:COLUMNS]}, COLUMNS)
rows = trainer.predict(few, pictures).values()  # [COLUMNS, 784] each
grid = np.vstack([np.hstack(row.reshape(-1, 28, 28)) for row in rows])
matplotlib.image.imsave(args.workdir / "vae.png", 1 - grid, cmap="gray")
