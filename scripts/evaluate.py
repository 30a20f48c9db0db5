"""Evaluates the test split with the weights that a training run has left.

python scripts/evaluate.py --workdir=runs/mnist --checkpoint=best
"""

from __future__ import annotations

import pathlib

import _cli
from absl import flags

from lenet_tf.run import evaluate

_WORKDIR = flags.DEFINE_string("workdir", "runs/mnist", "The run's directory.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "The weights of result.json, or those best on the validation split.",
)


def main(argv: list[str]) -> None:
    del argv
    test = evaluate(pathlib.Path(_WORKDIR.value), _CHECKPOINT.value)
    print(
        f"test accuracy {test['test_accuracy']:.2%}, test loss "
        f"{test['test_loss']:.4f}, {test['test_examples']:,} test examples"
    )


if __name__ == "__main__":
    _cli.run(main)
