"""A network of keras.applications, trained by the loop of this library.

    python examples/keras_application.py --workdir=runs/application

The experiment is the network in `strategy.scope()`, and `model`, `optimizer` and
`forward` after it, which make Keras's parts fit the trainer. MobileNet's 27 batch
normalizations use mean and variance of the global batch, over all replicas, so that two
replicas compute what one computes, up to rounding.

The initial weights are random by default. --weights=imagenet downloads weights that
were trained on ImageNet, and --weights=FILE takes them from a file that was downloaded
before, such as mobilenet_2_5_224_tf_no_top.h5.
"""

import argparse
import pathlib

import keras
from coloured_digits import draw_splits

import lenet_tf
import lenet_tf.keras
from lenet_tf import Batches, Progress, Saver, Trainer
from lenet_tf.checkpoint import find_checkpoint, restore_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/application")
    parser.add_argument("--weights", help="imagenet, or a file")
    parser.add_argument("--replicas", default="auto")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--examples", type=int, default=20_000)
    args = parser.parse_args()

    strategy = lenet_tf.make_strategy(args.replicas)
    train, validation, test = draw_splits(args.examples).values()
    keras.utils.set_random_seed(0)  # of the initial weights
    with strategy.scope():
        network = keras.Sequential(
            [
                keras.Input([32, 32, 3]),
                keras.layers.Rescaling(1 / 127.5, offset=-1),
                keras.layers.UpSampling2D(2),
                keras.applications.MobileNet(
                    input_shape=(64, 64, 3),
                    alpha=0.25,
                    include_top=False,
                    weights=args.weights,
                    pooling="avg",
                ),
                keras.layers.Dropout(0.1),
                keras.layers.Dense(10),
            ]
        )
        model = lenet_tf.keras.model(network)
        optimizer = lenet_tf.keras.optimizer(keras.optimizers.AdamW(2e-3))
    forward = lenet_tf.keras.forward(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        x="image",
        y="label",
        metrics={"accuracy": keras.metrics.sparse_categorical_accuracy},
    )
    trainer = Trainer(model, optimizer, forward, strategy=strategy)
    trainer.fit(
        Batches(train, 64, seed=0),
        validation=Batches(validation, 500),
        epochs=args.epochs,
        saver=Saver(args.workdir),
        actions=[Progress()],
    )
    restore_model(model, find_checkpoint(args.workdir, "best"))
    print(trainer.evaluate(Batches(test, 500)))
    network.save(args.workdir / "network.keras")


if __name__ == "__main__":
    main()
