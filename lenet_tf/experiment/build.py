"""From settings to what they name: splits, model, forward function, optimizer, trainer.

splits = load_splits(config)
trainer = build_trainer(config, splits, strategy)
"""

from __future__ import annotations

import tensorflow as tf

from lenet_tf.data import datasets
from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.training_settings import parse_watch
from lenet_tf.nn.distortion import Distortion
from lenet_tf.nn.images import IMAGE_SIZE
from lenet_tf.nn.lenet import LeNet5
from lenet_tf.nn.losses import Forward, distorted_classification
from lenet_tf.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from lenet_tf.parallel.strategies import on_gpu
from lenet_tf.train.trainer import Trainer


def load_splits(config: Config) -> datasets.Splits:
    """Opens the dataset, and checks that the model takes its images.

    Raises:
      UsageError: The dataset is not to be had, its images are too large, or it has
        other channels or classes than the configuration.
    """
    splits = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        validation_examples=config.validation_examples,
        idx_dir=config.idx_dir,
    )
    height, width, channels = splits.image_shape
    if max(height, width) > IMAGE_SIZE:
        raise UsageError(
            f"{config.dataset} has images of {height}x{width}: LeNet5 takes at most "
            f"{IMAGE_SIZE}x{IMAGE_SIZE}"
        )
    for field, needed in (("channels", channels), ("num_classes", splits.num_classes)):
        asked = getattr(config, field)
        if asked not in (0, needed):
            raise UsageError(
                f"{field} is {asked}, but {config.dataset} has {needed}: leave it at 0 "
                "to take the dataset's"
            )
    return splits


def build_model(config: Config, splits: datasets.Splits) -> LeNet5:
    """Makes the model, in the current strategy's scope."""
    return LeNet5(
        splits.num_classes,
        splits.image_shape[2],
        activation=config.activation,
        subsampling=config.subsampling,
        kernel=config.kernel,
        initial=config.initial,
        dropout=config.dropout,
        precision=config.precision,
        seed=config.seed,
    )


def build_trainer(
    config: Config, splits: datasets.Splits, strategy: tf.distribute.Strategy
) -> Trainer:
    """Makes the model, in the strategy's scope, the optimizer and their trainer.

    With `config.deterministic` all operations of the process are deterministic from
    then on, as with `make_strategy(deterministic=True)`.

    Raises:
      UsageError: XLA cannot compile the model deterministically.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    xla = _uses_xla(config, on_gpu(strategy))
    with strategy.scope():
        model = build_model(config, splits)
    steps_per_epoch = -(-splits.train_examples // config.batch_size)
    return Trainer(
        model,
        build_optimizer(config, config.epochs * steps_per_epoch),
        build_forward(config, xla),
        strategy=strategy,
        steps_per_loop=config.steps_per_loop or (500 if on_gpu(strategy) else 100),
        seed=config.seed,
        clip_norm=config.clip_norm,
        ema=config.ema,
        loss_scaling=config.precision == "mixed_float16",
        jit_compile=xla,
        watch=parse_watch(config.watch) if config.watch else (),
    )


def _uses_xla(config: Config, gpu: bool) -> bool:
    # XLA has no deterministic gradient of TensorFlow's max-pooling, on any device.
    possible = not (config.deterministic and config.subsampling == "max")
    if config.jit_compile and not possible:
        raise UsageError(
            "jit_compile is True, but XLA has no deterministic gradient of subsampling "
            "max: leave jit_compile or deterministic out"
        )
    return gpu and possible if config.jit_compile is None else config.jit_compile


def build_forward(config: Config, xla: bool = False) -> Forward:
    """Makes the forward function of a classifier whose training images are distorted.

    Args:
      config: Settings; those of the distortions and the label smoothing are used.
      xla: Whether XLA compiles the function.
    """
    distortion = Distortion(
        config.shift, config.rotate, config.scale, config.shear, config.elastic, xla
    )
    return distorted_classification(distortion, config.smoothing)


def build_schedule(config: Config, steps: int) -> Schedule:
    """Makes the schedule of the learning rate over a number of steps."""
    settings = config.as_dict()
    return SCHEDULES.make(
        config.schedule, config.learning_rate, max(1, steps), settings=settings
    )


def build_optimizer(config: Config, steps: int) -> Optimizer:
    """Makes the optimizer, with a schedule over a number of steps."""
    schedule = build_schedule(config, steps)
    return OPTIMIZERS.make(config.optimizer, schedule, settings=config.as_dict())


def as_batches(
    examples: datasets.Examples, batch_size: int, seed: int | None = None
) -> Batches:
    """Cuts examples into batches of `image` and `label`.

    Args:
      examples: Images and their labels.
      batch_size: Number of examples in a global batch; where there are fewer, all.
      seed: Seed of the order of the examples; None keeps them in order.
    """
    arrays = {"image": examples.image, "label": examples.label}
    return Batches(arrays, min(batch_size, max(1, len(examples))), seed=seed)
