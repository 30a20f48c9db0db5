"""Trains LeNet-5, evaluates the test split once, and leaves it all in the workdir.

    python -m lenet_tf train
    python -m lenet_tf train --dataset=fashion_mnist --epochs=10 --workdir=runs/fashion

The defaults are the reference recipe on MNIST. The same command again goes on where a
stopped run was, in the middle of an epoch too.
"""

from __future__ import annotations

import math
import pathlib
from typing import Any

from absl import flags

from lenet_tf.cli import program
from lenet_tf.experiment.config import SCHEDULES, Config
from lenet_tf.experiment.recipes import RECIPES, recipe
from lenet_tf.experiment.runs import run
from lenet_tf.nn.layers import ACTIVATIONS, Subsample
from lenet_tf.nn.lenet import INITIALS, KERNELS, PRECISIONS
from lenet_tf.optim.optimizers import OPTIMIZERS
from lenet_tf.parallel.strategies import STRATEGIES

_DEFAULTS = Config()

with program.group("Recipe"):
    _RECIPE = flags.DEFINE_enum(
        "recipe",
        _DEFAULTS.recipe,
        list(RECIPES),
        "A named set of settings; flags that are given come before it.",
    )

with program.group("Data"):
    flags.DEFINE_string(
        "dataset",
        _DEFAULTS.dataset,
        "TFDS name of a dataset of images with integer labels: mnist, fashion_mnist, "
        "kmnist, emnist/letters ...",
    )
    flags.DEFINE_string(
        "data_dir", None, "Where TFDS keeps datasets; its standard directory if unset."
    )
    flags.DEFINE_string(
        "idx_dir",
        None,
        "A folder with the four IDX files, to prepare the dataset from.",
    )
    flags.DEFINE_integer(
        "validation_examples",
        _DEFAULTS.validation_examples,
        "How many of the last training examples are held out.",
        lower_bound=0,
    )

with program.group("Model"):
    flags.DEFINE_enum(
        "activation", _DEFAULTS.activation, list(ACTIVATIONS), "Non-linearity."
    )
    flags.DEFINE_enum(
        "subsampling",
        _DEFAULTS.subsampling,
        list(Subsample.KINDS),
        "How 2x2 windows become one value.",
    )
    flags.DEFINE_enum(
        "kernel",
        _DEFAULTS.kernel,
        list(KERNELS),
        "One 5x5 kernel a convolution, or two stacked 3x3.",
    )
    flags.DEFINE_integer(
        "num_classes", _DEFAULTS.num_classes, "0 for the dataset's.", lower_bound=0
    )
    flags.DEFINE_integer(
        "channels", _DEFAULTS.channels, "Of the images; 0 for theirs.", lower_bound=0
    )

    flags.DEFINE_enum(
        "initial", _DEFAULTS.initial, list(INITIALS), "Initial weights of C3 and C5."
    )
    flags.DEFINE_float(
        "dropout", _DEFAULTS.dropout, "Share of F6's outputs that is dropped."
    )
    flags.DEFINE_enum(
        "precision", _DEFAULTS.precision, list(PRECISIONS), "Of the arithmetic."
    )

with program.group("Training"):
    flags.DEFINE_enum("optimizer", _DEFAULTS.optimizer, list(OPTIMIZERS), "Which.")
    flags.DEFINE_float(
        "learning_rate", _DEFAULTS.learning_rate, "The highest of the schedule."
    )
    flags.DEFINE_enum(
        "schedule", _DEFAULTS.schedule, list(SCHEDULES), "Of the learning rate."
    )
    flags.DEFINE_float(
        "warmup", _DEFAULTS.warmup, "Share of steps that rise (cosine, one_cycle)."
    )
    flags.DEFINE_float(
        "decay",
        _DEFAULTS.decay,
        "What the rate falls to, as a share: in all (exponential), at each milestone "
        "(piecewise).",
    )
    flags.DEFINE_string(
        "milestones", _DEFAULTS.milestones, "Shares of the steps (piecewise)."
    )
    flags.DEFINE_float("weight_decay", _DEFAULTS.weight_decay, "Of adamw.")
    flags.DEFINE_float("smoothing", _DEFAULTS.smoothing, "Of the labels.")
    flags.DEFINE_float(
        "ema", _DEFAULTS.ema, "Decay of an average of the weights, to be evaluated."
    )
    flags.DEFINE_float(
        "momentum",
        _DEFAULTS.momentum,
        "Of sgd.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer(
        "epochs", _DEFAULTS.epochs, "Passes over the training examples.", lower_bound=0
    )
    flags.DEFINE_integer(
        "batch_size",
        _DEFAULTS.batch_size,
        "Examples in a global batch, over all replicas.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "eval_batch_size",
        _DEFAULTS.eval_batch_size,
        "The same in evaluation.",
        lower_bound=1,
    )
    flags.DEFINE_float("clip_norm", None, "The most the gradient's global norm may be.")
    flags.DEFINE_integer(
        "seed", _DEFAULTS.seed, "Of the initial weights and the order of examples."
    )

with program.group("Distortions, the most in either direction"):
    flags.DEFINE_float("shift", _DEFAULTS.shift, "Pixels.")
    flags.DEFINE_float("rotate", _DEFAULTS.rotate, "Degrees.")
    flags.DEFINE_float("scale", _DEFAULTS.scale, "Share of the size.")
    flags.DEFINE_float("shear", _DEFAULTS.shear, "Degrees.")
    flags.DEFINE_float("elastic", _DEFAULTS.elastic, "Pixels, at control points.")

with program.group("Devices"):
    flags.DEFINE_string(
        "num_replicas",
        _DEFAULTS.num_replicas,
        "How many GPUs, or CPU cores where there is no GPU; auto takes all.",
    )
    flags.DEFINE_enum(
        "strategy",
        _DEFAULTS.strategy,
        list(STRATEGIES),
        "How replicas are spread; auto is multi_worker with TF_CONFIG or srun, else "
        "mirrored. tpu has never been run.",
    )
    flags.DEFINE_float(
        "worker_timeout",
        _DEFAULTS.worker_timeout,
        "Seconds to wait for the other workers to start.",
    )
    flags.DEFINE_integer(
        "steps_per_loop",
        _DEFAULTS.steps_per_loop,
        "Steps in the graph between two looks by Python; 100, or 500 on GPUs.",
        lower_bound=1,
    )

    flags.DEFINE_bool(
        "jit_compile",
        _DEFAULTS.jit_compile,
        "Compile the gradient with XLA: by default on GPUs only; slower on CPUs.",
    )

with program.group("Run directory"):
    _WORKDIR = flags.DEFINE_string("workdir", "runs/mnist", "Where the run is kept.")
    _RESUME = flags.DEFINE_bool(
        "resume", True, "Go on with the run that the workdir holds."
    )
    flags.DEFINE_integer(
        "save_steps",
        _DEFAULTS.save_steps,
        "Checkpoint at the first loop end in each so many steps; each epoch's end is "
        "saved anyway.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "save_seconds",
        _DEFAULTS.save_seconds,
        "Checkpoint at the first loop end after so many seconds.",
        lower_bound=0.0,
    )
    flags.DEFINE_integer(
        "keep", _DEFAULTS.keep, "How many of the latest checkpoints to keep.", 1
    )
    flags.DEFINE_bool(
        "background_save", False, "Train on while checkpoints are written."
    )

flags.register_validator(
    "learning_rate",
    lambda rate: 0 < rate < math.inf,
    "--learning_rate must be above 0",
)
flags.register_validator(
    "clip_norm",
    lambda norm: norm is None or 0 < norm < math.inf,
    "--clip_norm must be above 0",
)
flags.register_validator(
    "save_seconds",
    lambda seconds: seconds is None or seconds < math.inf,
    "--save_seconds must be a number of seconds",
)
flags.register_validator(
    "worker_timeout",
    lambda seconds: 0 < seconds < math.inf,
    "--worker_timeout must be a number of seconds above 0",
)
flags.register_validator("workdir", bool, "--workdir must name a directory")
flags.register_validator(
    "momentum", lambda momentum: momentum < 1, "--momentum must be below 1"
)
flags.register_validator(
    "num_replicas",
    lambda text: text == "auto" or (text.isdecimal() and int(text) > 0),
    "--num_replicas must be a number above 0, or auto",
)


def _main() -> None:
    given: dict[str, Any] = {
        name: flags.FLAGS[name].value
        for name in _DEFAULTS.as_dict()
        if flags.FLAGS[name].present
    }
    config = Config(**{**recipe(_RECIPE.value), **given})
    workdir = pathlib.Path(_WORKDIR.value)
    result = run(config, workdir, resume=_RESUME.value)
    if not result:
        return  # the chief tells
    print(
        f"test accuracy {result['test_accuracy']:.2%}, test loss "
        f"{result['test_loss']:.4f}, {result['test_examples']:,} test examples, "
        f"{result['parameters']:,} parameters, {result['train_seconds']:.0f} s of "
        f"training on {result['replicas']} replicas; see {workdir}"
    )


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
