"""Evaluates the test split with the weights that a training run has left.

python -m lenet_tf evaluate --workdir=runs/mnist --checkpoint=best
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program
from lenet_tf.experiment.runs import evaluate

_WORKDIR = program.define_path("workdir", "runs/mnist", "Directory of the run.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Weights to evaluate: those of result.json, or those of the best epoch on the "
    "validation split.",
)


def _main() -> None:
    test = evaluate(_WORKDIR.value, _CHECKPOINT.value)
    print(
        f"test accuracy {test['test_accuracy']:.2%}, test loss "
        f"{test['test_loss']:.4f}, {test['test_examples']:,} test examples"
    )


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
