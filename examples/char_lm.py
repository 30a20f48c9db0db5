"""A language model of characters: of Python's own source code, or of any text.

    python examples/char_lm.py --workdir=runs/char_lm
    python examples/char_lm.py --workdir=runs/letters --text=letters.txt

The experiment is the function `forward` and the argument `derived` of the trainer.
`forward` returns the mean loss over the characters of each piece of text; bits per
character, which choose the best epoch, are derived from the mean over all pieces.
The network is a small WaveNet (van den Oord et al., 2016); counts of n-grams of the
same text are its measure. At the end it writes on from "def ".
"""

import argparse

import numpy as np
import tensorflow as tf
from characters import SYMBOLS, cut, ngram_bits, read_text

from lenet_tf import Adam, Batches, Progress, Saver, Trainer, make_strategy
from lenet_tf.checkpoint import find_checkpoint, restore_model
from lenet_tf.nn import Dense

LENGTH, WIDTH, DILATIONS = 256, 96, [1, 2, 4, 8, 16, 32, 64]


class WaveNet(tf.Module):
    """Characters [B, T] -> logits of the one after each, [B, T, SYMBOLS]."""

    def __init__(self) -> None:
        super().__init__(name="wavenet")
        self.first = Dense(SYMBOLS, WIDTH, (0, 0), "first")
        self.layers = [Dense(2 * WIDTH, 2 * WIDTH, (1, d)) for d in DILATIONS]
        self.last = Dense(WIDTH, SYMBOLS, (2, 0), "last")

    def __call__(self, text: tf.Tensor) -> tf.Tensor:  # noqa: D102
        x = self.first(tf.one_hot(text, SYMBOLS))
        for layer, dilation in zip(self.layers, DILATIONS, strict=True):
            before = tf.pad(x, [[0, 0], [dilation, 0], [0, 0]])[:, :-dilation]
            value, gate = tf.split(layer(tf.concat([x, before], axis=2)), 2, axis=2)
            x += tf.tanh(value) * tf.sigmoid(gate)
        return self.last(x)


def forward(model: WaveNet, batch: dict, training: bool) -> dict:
    text = tf.cast(batch["text"], tf.int32)  # [B, LENGTH + 1]
    logits, following = model(text[:, :-1]), text[:, 1:]
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(following, logits)
    return {"loss": tf.reduce_mean(loss, axis=1)}


def write_on(model: WaveNet, text: str, count: int) -> str:
    logits_of, rng = tf.function(model, reduce_retracing=True), np.random.default_rng(0)
    codes = list(text.encode())
    for _ in range(count):
        logits = logits_of(tf.constant([codes[-LENGTH:]]))[0, -1].numpy()
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        codes.append(int(np.argmax(logits / 0.7 + rng.gumbel(size=SYMBOLS))))
    return bytes(codes).decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", default="runs/char_lm")
    parser.add_argument("--text", help="file of text")
    parser.add_argument("--characters", type=int, help="use the first N only")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()

    strategy = make_strategy("auto")
    train, held_out = read_text(args.text, args.characters)
    for n in (1, 2, 3):
        print(f"{n}-grams: {ngram_bits(train, held_out, n):.3f} bits per character")
    with strategy.scope():
        model = WaveNet()
    derived = {"bits": lambda values: values["loss"] / np.log(2)}
    trainer = Trainer(model, Adam(2e-3), forward, strategy=strategy, derived=derived)
    trainer.fit(
        Batches({"text": cut(train, LENGTH)}, 16, seed=0),
        validation=Batches({"text": cut(held_out, LENGTH)}, 32),
        epochs=args.epochs,
        saver=Saver(args.workdir, best="val_bits", mode="min"),
        actions=[Progress()],
    )
    restore_model(model, find_checkpoint(args.workdir, "best"))
    print(write_on(model, "def ", 400))


if __name__ == "__main__":
    main()
