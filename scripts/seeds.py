"""Trains a recipe over several seeds, and tells mean and standard deviation.

    python scripts/seeds.py --recipe=fast --seeds=5

The test split is evaluated once a seed, at the end of its training. Seconds are of
training, tracing included, without imports and without reading data. Tune on the
validation split: --noevaluate_test, with more --validation_examples.
"""

from __future__ import annotations

import statistics

import _cli
from absl import flags

from lenet_tf.build import as_batches, build_trainer, load_splits
from lenet_tf.config import Config
from lenet_tf.distribute import make_strategy
from lenet_tf.recipes import RECIPES, recipe

_RECIPE = flags.DEFINE_enum("recipe", "fast", list(RECIPES), "Which.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "How many, from 0 on.", lower_bound=1)
_TEST = flags.DEFINE_bool("evaluate_test", True, "Or else the validation split.")
_VALIDATION = flags.DEFINE_integer(
    "validation_examples", 2000, "Held out at the end of train.", lower_bound=0
)


def main(argv: list[str]) -> None:
    del argv
    strategy = make_strategy()
    settings = {**recipe(_RECIPE.value), "validation_examples": _VALIDATION.value}
    splits = load_splits(Config(**settings))
    held_out = splits.test if _TEST.value else splits.validation
    train = splits.train
    accuracies, seconds = [], []
    for seed in range(_SEEDS.value):
        config = Config(**settings, seed=seed)
        trainer = build_trainer(config, splits, strategy)
        trainer.fit(as_batches(train, config.batch_size, seed), epochs=config.epochs)
        result = trainer.evaluate(as_batches(held_out, config.eval_batch_size))
        accuracies.append(100 * result["accuracy"])
        seconds.append(trainer.record.seconds)
        print(
            f"{_RECIPE.value} seed {seed}: {accuracies[-1]:.2f} % of "
            f"{result['examples']:,}, {seconds[-1]:.1f} s",
            flush=True,
        )
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(
        f"{_RECIPE.value}: mean {statistics.mean(accuracies):.3f} %, standard "
        f"deviation {spread:.3f}, median {statistics.median(seconds):.1f} s, most "
        f"{max(seconds):.1f} s"
    )


if __name__ == "__main__":
    _cli.run(main)
