"""What a run of LeNet-5 writes for TensorBoard."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.data.datasets import Splits
from lenet_tf.experiment.build import as_batches
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.settings import without_effect
from lenet_tf.nn.images import standardize
from lenet_tf.nn.lenet import LeNet5
from lenet_tf.train.actions.mistakes import Mistakes
from lenet_tf.train.actions.tensorboard import TensorBoard


def make_tensorboard(
    config: Config, splits: Splits, folder: pathlib.Path
) -> TensorBoard:
    """Makes the action: metrics, settings, histograms, and mistakes.

    Args:
      config: Settings of the run. Those without effect are not shown.
      splits: Dataset of the run. The mistakes are those on its validation split; if
        that is empty, there are none.
      folder: Folder to write to.

    Raises:
      UsageError: The package tensorboard is not installed.
    """
    settings = config.as_dict()
    idle = without_effect(Config, settings)
    mistakes = None
    if len(splits.validation):
        mistakes = Mistakes(
            as_batches(splits.validation, config.eval_batch_size),
            _probabilities,
            class_names=splits.class_names,
        )
    return TensorBoard(
        folder,
        settings={name: v for name, v in settings.items() if name not in idle},
        histograms=True,
        mistakes=mistakes,
    )


def _probabilities(model: LeNet5, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return model.predict(standardize(batch["image"]))
