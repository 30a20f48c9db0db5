"""What a run will do, told before it begins.

for line in plan(config, splits, trainer, workdir):
    print(line)
"""

from __future__ import annotations

import pathlib
import shutil

import tensorflow as tf

from lenet_tf.checkpoint.storage import newest_whole
from lenet_tf.data.datasets import Splits
from lenet_tf.experiment.config import Config
from lenet_tf.train.trainer import Trainer


def plan(
    config: Config, splits: Splits, trainer: Trainer, workdir: pathlib.Path
) -> list[str]:
    """Describes a run: data, devices and network, steps, disk.

    Args:
      config: Settings of the run.
      splits: Dataset of the run; nothing of it is read.
      trainer: Trainer of the run.
      workdir: Directory of the run, which need not exist.

    Returns:
      Four lines.
    """
    devices = trainer.strategy.extended.worker_devices
    names = [tf.DeviceSpec.from_string(d) for d in devices]
    here = ", ".join(f"{d.device_type}:{d.device_index}" for d in names)
    replicas = trainer.strategy.num_replicas_in_sync
    there = replicas - len(devices)
    if there:
        here += f" and {there} of other workers"
    variables = trainer.state.model.trainable_variables
    parameters = sum(v.shape.num_elements() for v in variables)
    per_epoch = -(-splits.train_examples // config.batch_size)
    return [
        f"data       {splits.name}: {splits.train_examples:,} examples to train, "
        f"{splits.validation_examples:,} to validate, {splits.test_examples:,} to test",
        f"network    LeNet-5 with {parameters:,} parameters in {config.precision}, "
        f"{_count(replicas, 'replica')} on {here}",
        f"steps      {_count(config.epochs, 'epoch')} of {_count(per_epoch, 'step')} "
        f"with {min(config.batch_size, splits.train_examples):,} examples each, "
        f"{config.epochs * per_epoch:,} in all{_resumed(workdir)}",
        f"directory  {workdir}: {_disk(trainer, config, workdir)}",
    ]


def _resumed(workdir: pathlib.Path) -> str:
    path = newest_whole(workdir / "checkpoints")
    if path is None:
        return ""
    return f"; goes on from {pathlib.Path(path).name}"


def _disk(trainer: Trainer, config: Config, workdir: pathlib.Path) -> str:
    holder = tf.Module()
    holder.parts = list(trainer.state.parts().values())
    size = sum(v.shape.num_elements() * v.dtype.size for v in holder.variables)
    folder = workdir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    # While one is written, the one that it replaces is still there; and the best one.
    return (
        f"checkpoints of {_bytes(size)}, up to {config.keep + 2} of them; "
        f"{_bytes(free)} are free"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def _bytes(size: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
