"""Segmentation: a small U-Net that says of each pixel which shape it belongs to.

    python examples/segmentation.py --workdir=runs/segmentation

The experiment is the function `forward` and the argument `derived` of the trainer.
`forward` returns the confusion matrix of each picture's pixels, which the trainer adds
up. The IoU is computed from the sum, once over all pixels: its mean over batches would
be another number. It is in the history and chooses the best epoch. At the end,
`predictions.png` shows pictures, the shapes in them, and what the model found.
"""

import argparse
import pathlib

import tensorflow as tf
from shapes import SHAPES, draw_shapes, save_grid

from lenet_tf import Adam, Batches, Progress, Saver, Trainer, make_strategy
from lenet_tf.checkpoint import find_checkpoint, restore_model
from lenet_tf.nn import BatchNorm, Conv2D, iou, pixel_confusion


class UNet(tf.Module):
    """Logits [B, 48, 48, classes] of pictures (Ronneberger et al., 2015)."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(name="unet")
        sizes = [(1, 1), (width, 2), (2 * width, 4), (6 * width, 2), (3 * width, 1)]
        self.convs = [
            Conv2D(3, inputs, times * width, (0, index), f"conv{index}")
            for index, (inputs, times) in enumerate(sizes)
        ]
        self.norms = [BatchNorm(times * width, momentum=0.9) for _, times in sizes]
        self.output = Conv2D(1, width, classes, (0, 9), "output")

    def logits(self, batch: dict, training: bool) -> tf.Tensor:
        """Goes down to a quarter of the size, and up again."""

        def block(index: int, x: tf.Tensor) -> tf.Tensor:
            x = self.convs[index](tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]))
            return tf.nn.relu(self.norms[index](x, batch, training))

        def joined(small: tf.Tensor, large: tf.Tensor) -> tf.Tensor:
            return tf.concat([tf.image.resize(small, large.shape[1:3]), large], axis=-1)

        whole = block(0, batch["image"])
        half = block(1, tf.nn.max_pool2d(whole, 2, 2, "VALID"))
        quarter = block(2, tf.nn.max_pool2d(half, 2, 2, "VALID"))
        half = block(3, joined(quarter, half))
        return self.output(block(4, joined(half, whole)))


def forward(model: UNet, batch: dict, training: bool) -> dict:
    logits, label = model.logits(batch, training), batch["label"]
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
    pixels = pixel_confusion(logits, label)  # [B, 4, 4]
    return {"loss": tf.reduce_mean(loss, [1, 2]), "pixels": pixels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/segmentation")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--examples", type=int, default=4000)
    args = parser.parse_args()

    strategy = make_strategy("auto")
    train = Batches(draw_shapes(args.examples, seed=0), 32, seed=0)
    held_out = Batches(draw_shapes(500, seed=1), 100)
    with strategy.scope():
        model = UNet(len(SHAPES))
    derived = {"iou": lambda values: iou(values["pixels"])}
    trainer = Trainer(model, Adam(3e-3), forward, strategy=strategy, derived=derived)
    saver = Saver(args.workdir, best="val_iou")
    actions = [Progress()]
    trainer.fit(
        train, validation=held_out, epochs=args.epochs, saver=saver, actions=actions
    )
    restore_model(model, find_checkpoint(args.workdir, "best"))

    examples = draw_shapes(8, seed=2)
    found = trainer.predict(Batches(examples, 8), lambda m, b: m.logits(b, False))
    picture = args.workdir / "predictions.png"
    save_grid(picture, *examples.values(), found.argmax(axis=-1))


if __name__ == "__main__":
    main()
