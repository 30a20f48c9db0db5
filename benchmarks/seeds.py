"""Trains a recipe over several seeds; prints their mean and standard deviation.

    python benchmarks/seeds.py --recipe=fast --seeds=5
    python benchmarks/seeds.py --recipe=keras      # the reference program, by Keras

The test split is evaluated once a seed, at the end of its training. Seconds are of
training, tracing included, without imports and without reading data. Tune on the
validation split: --noevaluate_test, with more --validation_examples.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator

from absl import flags
from reference import keras_lenet

from lenet_tf.cli import program
from lenet_tf.experiment.build import as_batches, build_trainer, load_splits
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.recipes import RECIPES, recipe
from lenet_tf.nn.images import standardize
from lenet_tf.parallel.strategies import make_strategy

_RECIPE = flags.DEFINE_enum(
    "recipe",
    "fast",
    [*RECIPES, "keras"],
    "Recipe to train, or keras for the reference program.",
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 5, "Number of seeds, which are counted from 0.", lower_bound=1
)
_TEST = flags.DEFINE_bool(
    "evaluate_test", True, "Whether the test split is evaluated, not the validation's."
)
_VALIDATION = flags.DEFINE_integer(
    "validation_examples",
    2000,
    "Number of training examples that are held out, the last ones.",
    lower_bound=0,
)


Result = tuple[float, int, float]  # accuracy, on how many examples, seconds


def by_lenet_tf(name: str) -> Iterator[Result]:
    """Trains a recipe, once for each seed."""
    strategy = make_strategy()
    held_out_size = _VALIDATION.value
    base = Config.from_dict(recipe(name), validation_examples=held_out_size)
    splits = load_splits(base)
    held_out = splits.test if _TEST.value else splits.validation
    for seed in range(_SEEDS.value):
        config = dataclasses.replace(base, seed=seed)
        trainer = build_trainer(config, splits, strategy)
        train = as_batches(splits.train, config.batch_size, seed)
        trainer.fit(train, epochs=config.epochs, progress=False)
        result = trainer.evaluate(as_batches(held_out, config.eval_batch_size))
        accuracy, examples = float(result["accuracy"]), int(result["examples"])
        yield accuracy, examples, trainer.record.seconds


def by_keras() -> Iterator[Result]:
    """Trains the reference program with Keras: 40 epochs of batches of 64."""
    import keras

    splits = load_splits(Config(validation_examples=_VALIDATION.value))
    held_out = splits.test if _TEST.value else splits.validation
    train, test = standardize(splits.train.image).numpy(), standardize(held_out.image)
    for seed in range(_SEEDS.value):
        keras.utils.set_random_seed(seed)
        model = keras_lenet(steps_per_execution=50)
        began = time.perf_counter()
        model.fit(train, splits.train.label, batch_size=64, epochs=40, verbose=0)
        seconds = time.perf_counter() - began
        _, accuracy = model.evaluate(test, held_out.label, verbose=0)
        yield accuracy, len(held_out), seconds


def main() -> None:
    name = _RECIPE.value
    accuracies, times = [], []
    results = by_keras() if name == "keras" else by_lenet_tf(name)
    for seed, (accuracy, examples, seconds) in enumerate(results):
        accuracies.append(100 * accuracy)
        times.append(seconds)
        print(
            f"{name} seed {seed}: {accuracies[-1]:.2f} % of {examples:,}, "
            f"{seconds:.1f} s",
            flush=True,
        )
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(
        f"{name}: mean {statistics.mean(accuracies):.3f} %, standard deviation "
        f"{spread:.3f}, median {statistics.median(times):.1f} s, most "
        f"{max(times):.1f} s"
    )


if __name__ == "__main__":
    program.run(main, __doc__)
