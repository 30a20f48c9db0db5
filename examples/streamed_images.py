"""Images read from a folder when they are needed, augmentation, batch normalization.

    python examples/streamed_images.py --workdir=runs/streamed_images
    python examples/streamed_images.py --images=FOLDER     # FOLDER/train/cat/1.png ...

The experiment is the function `augmented`. Its random numbers come from
`lenet_tf.nn.uniform`, which draws them by (seed, step, example), so that a run sees the
same pictures when it is stopped and resumed, or has more replicas. `Batches` is given
names of files, and reads each batch when it is needed. Without --images, the images are
coloured digits, which are written first.
"""

import argparse
import pathlib

import tensorflow as tf
from coloured_digits import write_digits
from image_folder import list_splits, read_image

import lenet_tf
from lenet_tf import Adam, Batches, Progress, Saver, Trainer
from lenet_tf.checkpoint import find_checkpoint, restore_model
from lenet_tf.nn import BatchNorm, Conv2D, Dense, classification, scale_pixels, uniform


class Network(tf.Module):
    """Images [B, 32, 32, 3] -> logits [B, classes], with batch normalization."""

    def __init__(self, classes: int) -> None:
        super().__init__(name="network")
        sizes = [(5, 3, 16), (3, 16, 32), (3, 32, 64)]
        self.convs = [Conv2D(*size, seed=(0, i)) for i, size in enumerate(sizes)]
        self.norms = [BatchNorm(filters, momentum=0.95) for _, _, filters in sizes]
        self.output = Dense(64, classes, seed=(0, 9))

    def __call__(self, x: tf.Tensor, training: bool, batch: dict) -> tf.Tensor:
        """Computes the logits."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = tf.nn.relu(norm(conv(x), batch, training))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")  # 14, 6, then 2 pixels a side
        return self.output(tf.reduce_mean(x, axis=[1, 2]))


def augmented(batch: dict) -> tf.Tensor:
    """Returns images that are shifted by up to 3 pixels, in another light."""
    images = scale_pixels(batch["image"])
    places = tf.cast(7 * uniform(batch, [2, 1], salt=1), tf.int32) + tf.range(32)
    images = tf.pad(images, [[0, 0], [3, 3], [3, 3], [0, 0]], "REFLECT")
    images = tf.gather(images, places[:, 0], axis=1, batch_dims=1)
    images = tf.gather(images, places[:, 1], axis=2, batch_dims=1)
    return images * (0.6 + 0.8 * uniform(batch, [1, 1, 3], salt=2))


def forward(model: Network, batch: dict, training: bool) -> dict:
    image = augmented(batch) if training else batch["image"]
    return classification(model, {**batch, "image": image}, training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/streamed_images")
    parser.add_argument(
        "--images", type=pathlib.Path, help="folder with train, validation and test"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--examples", type=int, default=20_000)
    args = parser.parse_args()

    strategy = lenet_tf.make_strategy("auto")
    folder = args.images or write_digits(args.workdir, args.examples)
    train, validation, test = list_splits(folder)
    with strategy.scope():
        model = Network(classes=1 + max(train["label"]))
    trainer = Trainer(model, Adam(3e-3), forward, strategy=strategy, ema=0.99)
    trainer.fit(
        Batches(train, 64, seed=0, transform=read_image),
        validation=Batches(validation, 500, transform=read_image),
        epochs=args.epochs,
        saver=Saver(args.workdir),
        actions=[Progress()],
    )
    restore_model(model, find_checkpoint(args.workdir, "best"), trainer.state.average)
    print(trainer.evaluate(Batches(test, 500, transform=read_image)))


if __name__ == "__main__":
    main()
