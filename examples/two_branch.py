"""A two-branch network of your own on Fashion-MNIST, beside LeNet-5 on the same data.

    python examples/two_branch.py --idx_dir=/usr/share/datasets/fashion-mnist

The experiment is the network's `__call__`: one branch sees patches of 5x5 pixels, the
other two of 3x3 in turn, and a dense layer looks at the maps of both. All the rest is
the same for LeNet-5. `--idx_dir` is the folder of the data's four IDX files, as in
Debian's package dataset-fashion-mnist; it is needed once, if there is no download.
"""

import argparse
import functools
import pathlib

import tensorflow as tf

import lenet_tf
from lenet_tf import LeNet5, Progress, Saver, Trainer, as_batches
from lenet_tf.nn import Conv2D, Dense, dropout
from lenet_tf.optim import AdamW, warmup_cosine


def pooled(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


class TwoBranch(tf.Module):
    """Logits [B, 10] of images [B, 32, 32, 1], from two branches."""

    def __init__(self) -> None:
        super().__init__(name="two_branch")
        self.wide = [Conv2D(5, 1, 16, (0, 0)), Conv2D(5, 16, 32, (0, 1))]
        sizes = [(1, 16), (16, 16), (16, 32), (32, 32)]
        self.deep = [Conv2D(3, *size, (1, i)) for i, size in enumerate(sizes)]
        self.hidden = Dense(5 * 5 * (32 + 32), 128, (2, 0), "hidden")
        self.output = Dense(128, 10, (2, 1), "output")

    def __call__(self, images: tf.Tensor, training: bool, batch: dict) -> tf.Tensor:
        """Each branch goes from 32 pixels a side to 28, 14, 10, and 5."""
        wide = deep = images
        for conv in self.wide:
            wide = pooled(tf.nn.relu(conv(wide)))
        for first, second in zip(self.deep[::2], self.deep[1::2], strict=True):
            deep = pooled(tf.nn.relu(second(tf.nn.relu(first(deep)))))
        x = tf.reshape(tf.concat([wide, deep], axis=-1), [-1, self.hidden.w.shape[0]])
        if training:
            x = dropout(batch, x, 0.4, salt=1)
        return self.output(tf.nn.relu(self.hidden(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/two_branch")
    parser.add_argument("--data_dir", type=pathlib.Path, help="of the prepared data")
    parser.add_argument("--idx_dir", type=pathlib.Path, help="of the IDX files")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    strategy = lenet_tf.make_strategy("auto")
    splits = lenet_tf.load(
        "fashion_mnist", data_dir=args.data_dir, idx_dir=args.idx_dir
    )
    train = as_batches(splits.train, 64, seed=0)
    validation, test = as_batches(splits.validation, 500), as_batches(splits.test, 500)
    lenet = functools.partial(LeNet5, activation="relu", subsampling="max")
    for name, make in (("two_branch", TwoBranch), ("lenet", lenet)):
        with strategy.scope():
            model = make()
        steps = args.epochs * train.steps_per_epoch
        rate = warmup_cosine(3e-3, steps, warmup=steps // 10)
        trainer = Trainer(model, AdamW(rate, 0.05), strategy=strategy)
        trainer.fit(
            train,
            validation=validation,
            epochs=args.epochs,
            saver=Saver(args.workdir / name),
            actions=[Progress()],
        )
        size = sum(v.shape.num_elements() for v in model.trainable_variables)
        accuracy = trainer.evaluate(test)["accuracy"]
        print(f"{name}: {size:,} parameters, {accuracy:.2%} of the test images")


if __name__ == "__main__":
    main()
