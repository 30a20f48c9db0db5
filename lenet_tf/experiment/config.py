"""The settings of a run.

    config = Config(epochs=3, batch_size=128)
    config.as_dict()["epochs"]

The defaults are the reference recipe: LeNet-5 of tanh, mean and sigmoid, Adam at 1e-3,
40 epochs of batches of 64. Named sets of others are in `lenet_tf.recipes`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.nn.layers import ACTIVATIONS, Subsample
from lenet_tf.nn.lenet import INITIALS, KERNELS, PRECISIONS
from lenet_tf.optim.optimizers import OPTIMIZERS

# What may differ when a run is resumed: where things are, how long, and on how many
# devices; the numbers do not depend on them.
FREE_ON_RESUME = {
    "recipe",
    "data_dir",
    "idx_dir",
    "epochs",
    "num_replicas",
    "strategy",
    "worker_timeout",
    "steps_per_loop",
    "keep",
    "save_steps",
    "save_seconds",
    "background_save",
    "eval_batch_size",
}


SCHEDULES = (
    "constant",
    "cosine",
    "one_cycle",
    "piecewise",
    "exponential",
    "polynomial",
)
_SHARES = ("momentum", "dropout", "warmup", "smoothing")
_AMOUNTS = ("weight_decay", "shift", "rotate", "scale", "shear", "elastic")


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a training run; the defaults are the reference recipe.

    Attributes:
      recipe: the name of the set that the others are taken from, for the record.
      dataset: TFDS name of a dataset of images with integer labels.
      data_dir: where TFDS keeps datasets; None for its standard directory.
      idx_dir: a folder with the four IDX files, to prepare the dataset from.
      validation_examples: how many of the last training examples are held out.
      activation: see `LeNet5`.
      subsampling: see `LeNet5`.
      kernel: see `LeNet5`.
      num_classes: 0 for the dataset's.
      channels: 0 for the dataset's.
      initial: see `LeNet5`.
      dropout: share of F6's outputs that is set to zero in training.
      precision: of the network's arithmetic; weights are always float32.
      optimizer: "adam", "adamw" or "sgd".
      learning_rate: the highest of the schedule.
      schedule: "constant", "cosine", "one_cycle", "piecewise", "exponential" or
        "polynomial" (linear, to 0), over all epochs.
      warmup: share of the steps in which the rate rises ("cosine", "one_cycle").
      decay: what the rate is multiplied by, in all ("exponential") or at each
        milestone ("piecewise").
      milestones: shares of the steps, with commas between ("piecewise").
      momentum: of "sgd".
      weight_decay: of "adamw".
      smoothing: of the labels.
      ema: decay of an average of the weights, which is evaluated; None for none.
      shift: see `Distortion`; pixels.
      rotate: degrees.
      scale: share of the size.
      shear: degrees.
      elastic: pixels.
      epochs: passes over the training examples.
      batch_size: examples in a global batch, over all replicas.
      eval_batch_size: the same in evaluation.
      clip_norm: the most the gradient's global norm may be; None leaves it.
      seed: of the initial weights, of the order of examples, and of what is random in
        a step.
      num_replicas: "auto" or a number.
      strategy: see `make_strategy`.
      worker_timeout: seconds to wait for the other workers to start.
      steps_per_loop: steps in the graph between two looks by Python; None for 100, or
        500 on GPUs, whose steps are shorter.
      jit_compile: whether XLA compiles the gradient, and draws random numbers of its
        own; None for on GPUs only.
      save_steps: checkpoint interval in steps; None for the end of epochs only.
      save_seconds: checkpoint interval in seconds.
      keep: how many of the latest checkpoints to keep.
      background_save: whether training goes on while checkpoints are written.

    Raises:
      UsageError: a value is out of its range.
    """

    recipe: str = "reference"
    dataset: str = "mnist"
    data_dir: str | None = None
    idx_dir: str | None = None
    validation_examples: int = 2000
    activation: str = "tanh"
    subsampling: str = "average_sigmoid"
    kernel: str = "5x5"
    num_classes: int = 0
    channels: int = 0
    initial: str = "glorot"
    dropout: float = 0.0
    precision: str = "float32"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.1
    decay: float = 0.1
    milestones: str = "0.5,0.75"
    momentum: float = 0.9
    weight_decay: float = 0.0
    smoothing: float = 0.0
    ema: float | None = None
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    epochs: int = 40
    batch_size: int = 64
    eval_batch_size: int = 250
    clip_norm: float | None = None
    seed: int = 0
    num_replicas: str = "auto"
    strategy: str = "auto"
    worker_timeout: float = 60.0
    steps_per_loop: int | None = None
    jit_compile: bool | None = None
    save_steps: int | None = None
    save_seconds: float | None = 60.0
    keep: int = 3
    background_save: bool = False

    def __post_init__(self) -> None:
        choices = {
            "activation": tuple(ACTIVATIONS),
            "subsampling": Subsample.KINDS,
            "kernel": KERNELS,
            "initial": INITIALS,
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
        }
        for field, allowed in choices.items():
            value = getattr(self, field)
            if value not in allowed:
                raise UsageError(
                    f"{field} is {value!r}: choose one of {', '.join(allowed)}"
                )
        least = {"batch_size": 1, "eval_batch_size": 1, "keep": 1}
        least |= {"epochs": 0, "validation_examples": 0, "num_classes": 0}
        for field, minimum in least.items():
            value = getattr(self, field)
            if value < minimum:
                raise UsageError(f"{field} is {value}: it must be at least {minimum}")
        # Not every one is a number; a comparison with NaN is false.
        for field, fits, rule in (
            ("learning_rate", lambda x: 0 < x < math.inf, "a number above 0"),
            ("clip_norm", lambda x: 0 < x < math.inf, "a number above 0"),
            *((name, lambda x: 0 <= x < 1, "in [0, 1)") for name in _SHARES),
            *((name, lambda x: 0 <= x < math.inf, "at least 0") for name in _AMOUNTS),
            ("decay", lambda x: 0 < x < math.inf, "a number above 0"),
            ("ema", lambda x: 0 < x < 1, "between 0 and 1"),
            ("worker_timeout", lambda x: 0 < x < math.inf, "a number above 0"),
            ("save_seconds", lambda x: 0 <= x < math.inf, "a number from 0 on"),
            ("save_steps", lambda x: x >= 1, "at least 1"),
            ("steps_per_loop", lambda x: x >= 1, "at least 1"),
            ("seed", lambda x: -(2**31) <= x < 2**31, "of 32 bits"),
        ):
            value = getattr(self, field)
            if value is not None and not fits(value):
                raise UsageError(f"{field} is {value}: it must be {rule}")

        self.milestone_shares()

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Config:
        """Makes a configuration of JSON values, as `as_dict` gives them.

        Raises:
          UsageError: a setting is unknown, or of another type.
        """
        defaults = cls().as_dict()
        unknown = settings.keys() - defaults.keys()
        if unknown:
            raise UsageError(f"there is no setting {', '.join(sorted(unknown))}")
        hints = typing.get_type_hints(cls)
        for name, value in settings.items():
            types = typing.get_args(hints[name]) or (hints[name],)
            # A whole number will do for a float; True is no whole number.
            if type(value) not in types and not (type(value) is int and float in types):
                due = " or ".join(t.__name__ for t in types)
                raise UsageError(f"setting {name} is {value!r}: {due} is due")
        return cls(**settings)

    def milestone_shares(self) -> list[float]:
        """Reads `milestones`.

        Raises:
          UsageError: they are not rising numbers between 0 and 1.
        """
        try:
            shares = [float(share) for share in self.milestones.split(",")]
        except ValueError:
            shares = []
        if (
            not shares
            or shares != sorted(shares)
            or not 0 < shares[0] <= shares[-1] < 1
        ):
            raise UsageError(
                f"milestones is {self.milestones!r}: give rising shares of the steps, "
                "such as 0.5,0.75"
            )
        return shares

    def free_on_resume(self) -> set[str]:
        """Names the settings that may differ when the run is resumed."""
        # A schedule is laid out over all epochs.
        fixed = set() if self.schedule == "constant" else {"epochs"}
        return FREE_ON_RESUME - fixed

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON values, in the order above."""
        return dataclasses.asdict(self)
