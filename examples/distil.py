"""Distilling the best checkpoint of a LeNet-5 run into about 10,000 parameters.

    python -m lenet_tf train --recipe=best --epochs=15 --smoothing=0 --workdir=runs/best
    python examples/distil.py --teacher=runs/best --workdir=runs/distil

The experiment is `forward`, and the `Update`, which names the student only: the teacher
is an attribute of the model, too, but stays as it is. The loss is the cross-entropy of
the labels plus T^2 times the KL divergence of the softmax of both at temperature T
(Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015).
The same student that learns from the labels alone is there to compare.
"""

import argparse
import json
import pathlib

import tensorflow as tf

import lenet_tf
from lenet_tf import Adam, Config, Progress, Saver, Trainer, Update, as_batches
from lenet_tf.experiment import build_trainer, load_splits
from lenet_tf.nn import Conv2D, Dense, Distortion, scale_pixels
from lenet_tf.optim import warmup_cosine

TEMPERATURE = 4.0
DISTORTION = Distortion(shift=1.5, rotate=12.0, scale=0.12, shear=8.0)


class Student(tf.Module):
    """Logits [B, 10] of images [B, 32, 32, 1], with 10,034 parameters."""

    def __init__(self, seed: int) -> None:
        super().__init__(name="student")
        self.convs = [Conv2D(5, 1, 4, (seed, 0)), Conv2D(5, 4, 12, (seed, 1))]
        self.hidden, self.output = Dense(300, 28, (seed, 2)), Dense(28, 10, (seed, 3))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """From 32 pixels a side to 28, 14, 10, and 5."""
        for conv in self.convs:
            x = tf.nn.max_pool2d(tf.nn.relu(conv(x)), 2, 2, "VALID")
        return self.output(tf.nn.relu(self.hidden(tf.reshape(x, [-1, 300]))))


def forward(model: tf.Module, batch: dict, training: bool) -> dict:
    images, labels = scale_pixels(batch["image"]), batch["label"]
    images = lenet_tf.standardize(DISTORTION(batch, images) if training else images)
    logits = model.student(images)
    loss = lenet_tf.softmax_cross_entropy(logits, labels)
    if training and model.teacher:
        cross_entropy = tf.nn.softmax_cross_entropy_with_logits
        taught, learned = model.teacher(images) / TEMPERATURE, logits / TEMPERATURE
        target = tf.nn.softmax(taught)
        kl = cross_entropy(target, learned) - cross_entropy(target, taught)
        loss += TEMPERATURE**2 * kl
    return {"loss": loss, "accuracy": lenet_tf.correct(logits, labels)}


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--teacher", type=pathlib.Path, default="runs/best")
parser.add_argument("--workdir", type=pathlib.Path, default="runs/distil")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

strategy = lenet_tf.make_strategy("auto")
config = Config.from_dict(json.loads((args.teacher / "config.json").read_text()))
splits = load_splits(config)
train = as_batches(splits.train, 64, seed=args.seed)
test = as_batches(splits.test, 500)
run = build_trainer(config, splits, strategy)
lenet_tf.load_weights(run.model, args.teacher, average=run.state.average)
print(f"teacher: {run.evaluate(test)['accuracy']:.2%} of the test digits")

for name, teacher in (("distilled", run.model), ("alone", None)):
    with strategy.scope():
        model = tf.Module(name)
        model.student, model.teacher = Student(args.seed), teacher
    steps = args.epochs * train.steps_per_epoch
    adam = Adam(warmup_cosine(5e-3, steps, warmup=steps // 10))
    updates = {"student": Update(model.student, adam)}
    trainer = Trainer(model, updates, forward, strategy=strategy, seed=args.seed)
    saver = Saver(args.workdir / f"{name}_{args.seed}", best=None)
    trainer.fit(train, epochs=args.epochs, saver=saver, actions=[Progress()])
    print(f"{name}: {trainer.evaluate(test)['accuracy']:.2%} of the test digits")
