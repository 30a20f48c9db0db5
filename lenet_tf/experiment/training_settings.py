"""The settings that tell what is trained, and on what: the first half of `Config`."""

from __future__ import annotations

import dataclasses
import re

from lenet_tf.experiment.declaration import local_path
from lenet_tf.experiment.recipes import RECIPES
from lenet_tf.experiment.settings import setting
from lenet_tf.nn.activations import ACTIVATIONS
from lenet_tf.nn.distortion import LARGEST_AMOUNTS
from lenet_tf.nn.images import IMAGE_SIZE
from lenet_tf.nn.layers import Subsample
from lenet_tf.nn.lenet import INITIALS, KERNELS, PRECISIONS
from lenet_tf.optim import OPTIMIZERS, SCHEDULES, parse_milestones
from lenet_tf.train.watch import WATCHABLE


def _dataset_name(text: str) -> None:
    if not re.fullmatch(r"[\w./:+-]+", text, re.ASCII):
        raise ValueError("the name of a TFDS dataset, such as mnist or emnist/letters")


def parse_watch(watch: str) -> list[str]:
    """Reads names of metrics: "gradient_norm,learning_rate" is a list of the two.

    Raises:
      ValueError: A name is unknown.
    """
    names = watch.split(",")
    if not {*names} <= {*WATCHABLE}:
        raise ValueError(f"names among {', '.join(WATCHABLE)}, with commas between")
    return names


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Data, model, optimizer, training and distortions; see `Config`."""

    recipe: str = setting(
        "reference",
        "Named set of settings, which flags that are given override.",
        group="Recipe",
        choices=RECIPES,
        free=True,
    )
    dataset: str = setting(
        "mnist",
        "TFDS name of a dataset of images with integer labels, such as mnist, "
        "fashion_mnist, kmnist or emnist/letters.",
        group="Data",
        rule=_dataset_name,
    )
    data_dir: str | None = setting(
        None,
        "Directory where TFDS keeps datasets; if none, TFDS_DATA_DIR, else "
        "~/tensorflow_datasets.",
        group="Data",
        rule=local_path,
        free=True,
    )
    idx_dir: str | None = setting(
        None,
        "Folder with the four IDX files of the dataset, to prepare it from.",
        group="Data",
        rule=local_path,
        free=True,
    )
    validation_examples: int = setting(
        2000,
        "Number of training examples that are held out, the last ones.",
        group="Data",
        least=0,
    )
    activation: str = setting(
        "tanh",
        "Function after each layer but the last.",
        group="Model",
        choices=ACTIVATIONS,
    )
    subsampling: str = setting(
        "average_sigmoid",
        "How the four values of a 2x2 window become one: their average through a "
        "sigmoid, their average, or their maximum.",
        group="Model",
        choices=Subsample.KINDS,
    )
    kernel: str = setting(
        "5x5",
        "Kernel of each convolution: one of 5x5, or two of 3x3, one after the other.",
        group="Model",
        choices=KERNELS,
    )
    num_classes: int = setting(
        0,
        "Number of classes; 0 takes the dataset's, any other must be equal to it.",
        group="Model",
        least=0,
    )
    channels: int = setting(
        0,
        "Number of channels of the images; 0 takes the dataset's, any other must be "
        "equal to it.",
        group="Model",
        least=0,
    )
    initial: str = setting(
        "glorot",
        "Initial weights of the convolutions C3 and C5: Glorot's, or four times as "
        "large to undo the sigmoid before them, which trains in fewer epochs.",
        group="Model",
        choices=INITIALS,
    )
    dropout: float = setting(
        0.0,
        "Share of the outputs of layer F6 that is set to zero in training.",
        group="Model",
        least=0,
        below=1,
    )
    precision: str = setting(
        "float32",
        "Number format of the network's arithmetic; weights are float32 in all.",
        group="Model",
        choices=PRECISIONS,
    )
    optimizer: str = setting(
        "adam", "Rule that updates the weights.", group="Optimizer", choices=OPTIMIZERS
    )
    learning_rate: float = setting(
        1e-3, "Learning rate, the highest of the schedule.", group="Optimizer", above=0
    )
    schedule: str = setting(
        "constant",
        "Course of the learning rate over all epochs.",
        group="Optimizer",
        choices=SCHEDULES,
    )
    warmup: float = setting(
        0.1,
        "Share of the steps in which the rate rises (schedules cosine, one_cycle).",
        group="Optimizer",
        least=0,
        below=1,
    )
    decay: float = setting(
        0.1,
        "Factor of the learning rate: over all steps (schedule exponential), or at "
        "each milestone (piecewise).",
        group="Optimizer",
        above=0,
    )
    milestones: str = setting(
        "0.5,0.75",
        "Shares of the steps after which the rate is multiplied by the decay, rising, "
        "with commas between (schedule piecewise).",
        group="Optimizer",
        rule=parse_milestones,
    )
    momentum: float = setting(
        0.9,
        "Share of the velocity that a step keeps (optimizers sgd, muon).",
        group="Optimizer",
        least=0,
        below=1,
    )
    nesterov: bool = setting(
        False, "Whether the momentum is Nesterov's (optimizer sgd).", group="Optimizer"
    )
    weight_decay: float = setting(
        4e-3,
        "Share of the weights that is taken off in each step, times the learning rate "
        "(optimizers adamw, lamb, lion, muon).",
        group="Optimizer",
        least=0,
    )
    smoothing: float = setting(
        0.0,
        "Share of each training label that is spread over all classes.",
        group="Training",
        least=0,
        below=1,
    )
    ema: float | None = setting(
        None,
        "Decay of a moving average of the weights, which is evaluated in place of the "
        "weights, such as 0.999; none keeps no average.",
        group="Training",
        above=0,
        below=1,
    )
    shift: float = setting(
        0.0,
        "Largest random shift of a training image in each axis, in pixels.",
        group="Distortions",
        least=0,
        most=IMAGE_SIZE / 2,
    )
    rotate: float = setting(
        0.0,
        "Largest random rotation in either direction, in degrees.",
        group="Distortions",
        least=0,
        most=LARGEST_AMOUNTS["rotate"],
    )
    scale: float = setting(
        0.0,
        "Largest random change of the size in each axis; 0.2 is from 1/1.2 to 1.2 "
        "times.",
        group="Distortions",
        least=0,
        most=LARGEST_AMOUNTS["scale"],
    )
    shear: float = setting(
        0.0,
        "Largest random shear in either direction, in degrees.",
        group="Distortions",
        least=0,
        most=LARGEST_AMOUNTS["shear"],
    )
    elastic: float = setting(
        0.0,
        "Largest random motion of the points of a coarse grid in each axis, in pixels; "
        "the pixels between follow smoothly.",
        group="Distortions",
        least=0,
        most=IMAGE_SIZE / 2,
    )
    epochs: int = setting(
        40,
        "Passes over the training examples, counted from the start of the run. It may "
        "change on resume unless the schedule is laid out over all epochs.",
        group="Training",
        least=0,
        free=True,
    )
    batch_size: int = setting(
        64,
        "Number of examples in a global batch, over all replicas.",
        group="Training",
        least=1,
    )
    eval_batch_size: int = setting(
        250,
        "Number of examples in a global batch of the evaluation.",
        group="Training",
        least=1,
        free=True,
    )
    clip_norm: float | None = setting(
        None,
        "Largest norm of the gradient as one vector; a longer one is scaled down. None "
        "leaves it as it is.",
        group="Training",
        above=0,
    )
    seed: int = setting(
        0,
        "Seed of the initial weights, of the order of examples and of what is random "
        "in a step.",
        group="Training",
    )
    watch: str | None = setting(
        None,
        "More metrics of training, with commas between, among gradient_norm, "
        "update_norm and learning_rate.",
        group="Training",
        rule=parse_watch,
    )
    deterministic: bool = setting(
        False,
        "Whether GPUs use only operations that give the same bits each time, which are "
        "slower; CPUs give the same bits in any case.",
        group="Training",
    )
