"""From settings to what they name: splits, model, forward function, optimizer, trainer.

splits = load_splits(config)
trainer = build_trainer(config, splits, strategy)
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.data import datasets
from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError
from lenet_tf.experiment.config import Config
from lenet_tf.nn.distortion import Distortion
from lenet_tf.nn.images import IMAGE_SIZE, standardize
from lenet_tf.nn.lenet import LeNet5
from lenet_tf.nn.losses import Forward, correct, softmax_cross_entropy
from lenet_tf.optim import schedules
from lenet_tf.optim.optimizers import SGD, Adam, AdamW, Optimizer
from lenet_tf.parallel.strategies import on_gpu
from lenet_tf.train.trainer import Trainer


def load_splits(config: Config) -> datasets.Splits:
    """Loads the dataset, and checks that the model takes it.

    Raises:
      UsageError: images too large, or other channels or classes than were asked for.
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


def build_trainer(
    config: Config, splits: datasets.Splits, strategy: tf.distribute.Strategy
) -> Trainer:
    """Makes model and optimizer in the strategy's scope, and their trainer."""
    with strategy.scope():
        model = LeNet5(
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
    gpu = on_gpu(strategy)
    xla = gpu if config.jit_compile is None else config.jit_compile
    steps_per_epoch = -(-splits.train_examples // config.batch_size)
    return Trainer(
        model,
        build_optimizer(config, config.epochs * steps_per_epoch),
        build_forward(config, xla),
        strategy=strategy,
        steps_per_loop=config.steps_per_loop or (500 if gpu else 100),
        seed=config.seed,
        clip_norm=config.clip_norm,
        ema=config.ema,
        loss_scaling=config.precision == "mixed_float16",
        jit_compile=xla,
    )


def build_forward(config: Config, xla: bool = False) -> Forward:
    """Makes the forward function of an image classifier, distorted in training.

    Args:
      config: names what it does.
      xla: whether XLA compiles it.
    """
    distort = Distortion(
        config.shift, config.rotate, config.scale, config.shear, config.elastic, xla
    )

    def forward(
        model: LeNet5, batch: Mapping[str, tf.Tensor], training: bool
    ) -> dict[str, tf.Tensor]:
        images, label = batch["image"], batch["label"]
        if training and distort.moves():
            images = distort(batch, tf.cast(images, tf.float32) / 255.0)
        logits = model(standardize(images), training=training, batch=batch)
        smoothing = config.smoothing if training else 0.0
        return {
            "loss": softmax_cross_entropy(logits, label, smoothing),
            "accuracy": correct(logits, label),
        }

    return forward


def build_schedule(config: Config, steps: int) -> schedules.Schedule:
    """Makes the learning rate's schedule over so many steps."""
    rate, steps = config.learning_rate, max(1, steps)
    if config.schedule == "cosine":
        return schedules.warmup_cosine(rate, steps, int(config.warmup * steps))
    if config.schedule == "one_cycle":
        return schedules.one_cycle(rate, steps, config.warmup)
    if config.schedule == "exponential":
        return schedules.exponential(rate, steps, config.decay)
    if config.schedule == "polynomial":
        return schedules.polynomial(rate, steps)
    if config.schedule == "piecewise":
        shares = config.milestone_shares()
        return schedules.piecewise(
            [int(share * steps) for share in shares],
            [rate * config.decay**i for i in range(len(shares) + 1)],
        )
    return schedules.constant(rate)


def build_optimizer(config: Config, steps: int) -> Optimizer:
    """Makes the optimizer that a configuration names, for so many steps."""
    schedule = build_schedule(config, steps)
    if config.optimizer == "sgd":
        return SGD(schedule, config.momentum)
    if config.optimizer == "adamw":
        return AdamW(schedule, config.weight_decay)
    return Adam(schedule)


def as_batches(
    examples: datasets.Examples, batch_size: int, seed: int | None = None
) -> Batches:
    """Cuts examples into batches of `image` and `label`, of all at most."""
    arrays = {"image": examples.image, "label": examples.label}
    return Batches(arrays, min(batch_size, max(1, len(examples))), seed=seed)
