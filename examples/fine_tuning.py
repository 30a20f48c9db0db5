"""Fine-tuning: a LeNet that knows the coloured digits 0 to 4 learns 5 to 9 from 100.

    python examples/fine_tuning.py --workdir=runs/fine_tuning --examples=100

The experiment is the dict `stages`: which layers learn, each with its own optimizer.
What no `Update` names stays as it is. First only a new head is trained, on the layers
that have learned the other digits; then all, the old layers at a fifth of the rate. A
LeNet that learns from the same 100 digits alone shows what the old layers are worth.
"""

import argparse
import pathlib

import numpy as np
from coloured_digits import draw_digits

import lenet_tf
from lenet_tf import Adam, Batches, LeNet5, Saver, Trainer, Update
from lenet_tf.data import Examples

BODY = ("c1", "c3", "c5", "f6")  # the layers of a LeNet5, all but `output`


def digits(split: Examples, first: int, seed: int, count: int | None = None) -> dict:
    """Draws digits `first` to `first + 4`, and labels 0 to 4."""
    order = np.random.default_rng(seed).permutation(len(split))
    chosen = [i for i in order if first <= split.label[i] < first + 5][:count]
    of_five = Examples(split.image[chosen], split.label[chosen] - first)
    return draw_digits(of_five, len(chosen), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/fine_tuning")
    parser.add_argument("--examples", type=int, default=100, help="of 5 to 9")
    parser.add_argument("--body_examples", type=int, help="of 0 to 4; default all")
    parser.add_argument("--epochs", type=int, default=60, help="of each stage")
    parser.add_argument("--seed", type=int, default=0, help="of the few examples")
    args = parser.parse_args()

    strategy = lenet_tf.make_strategy("auto")
    splits = lenet_tf.load("mnist")

    def network() -> LeNet5:
        options = {"activation": "relu", "subsampling": "max", "dropout": 0.5}
        with strategy.scope():
            return LeNet5(5, channels=3, seed=args.seed, **options)

    many = digits(splits.train, 0, seed=100, count=args.body_examples)
    first = Trainer(network(), Adam(1e-3), strategy=strategy)
    first.fit(
        Batches(many, 64, seed=0),
        validation=Batches(digits(splits.validation, 0, seed=101), 500),
        epochs=4,
        saver=Saver(args.workdir / "body"),
        actions=[lenet_tf.Progress()],
    )

    tuned, alone = network(), network()
    body = [getattr(tuned, layer) for layer in BODY]
    for layer, name in zip(body, BODY, strict=True):
        lenet_tf.load_weights(layer, args.workdir / "body", part=name)
    head_first = {"head": Update(tuned.output, Adam(3e-3))}
    then_all = {
        "body": Update(body, Adam(2e-4)),
        "head": Update(tuned.output, Adam(1e-3)),
    }
    stages = {
        "head": (tuned, head_first, args.epochs),
        "all": (tuned, then_all, args.epochs),
        "alone": (alone, {"all": Update(alone, Adam(3e-3))}, 2 * args.epochs),
    }
    few = Batches(digits(splits.train, 5, args.seed, args.examples), 20, seed=args.seed)
    test = Batches(digits(splits.test, 5, seed=102), 500)
    for stage, (model, updates, epochs) in stages.items():
        trainer = Trainer(model, updates, strategy=strategy)
        saver = Saver(args.workdir / f"{stage}_{args.examples}_{args.seed}")
        trainer.fit(few, epochs=epochs, saver=saver, progress=False)
        print(f"{stage}: {trainer.evaluate(test)['accuracy']:.2%} of the test digits")


if __name__ == "__main__":
    main()
