"""The network of a run, to use it.

network = load_network("runs/mnist", which="best")
network.probabilities(images)         # uint8 [N, 28, 28, 1] -> float32 [N, 10]
network.splits.class_names            # ("0", "1", ..., "9")
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from lenet_tf.checkpoint.restore import find_checkpoint, restore_model
from lenet_tf.data.datasets import Splits
from lenet_tf.errors import CheckpointError, UsageError
from lenet_tf.experiment.build import build_model, load_splits
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.run_files import read_run
from lenet_tf.nn.images import standardize
from lenet_tf.nn.lenet import LeNet5

_BATCH = 1000
_STEP = "step/.ATTRIBUTES/VARIABLE_VALUE"  # key of a run's checkpoints


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network, with the settings and the data of its run.

    Attributes:
      model: LeNet-5 with the weights of the run.
      config: Settings of the run.
      splits: Dataset of the run, which is read when a split is used.
      step: Number of steps that the weights were trained for.
    """

    model: LeNet5
    config: Config
    splits: Splits
    step: int

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the classes.

        Args:
          images: Images as the dataset has them, uint8 [N, H, W, C].

        Returns:
          float32 [N, classes].

        Raises:
          UsageError: The images are of another shape or dtype.
        """
        shape, wanted = np.shape(images)[1:], self.splits.image_shape
        if shape != wanted or images.dtype != np.uint8:
            raise UsageError(
                f"the images are {images.dtype} [N, {', '.join(map(str, shape))}]: "
                f"they must be uint8 [N, {', '.join(map(str, wanted))}]"
            )
        parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        empty = np.zeros([0, self.splits.num_classes], np.float32)
        found = [self._predict(tf.constant(part)).numpy() for part in parts]
        return np.concatenate([empty, *found])

    def maps(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the maps of an image, by the layer: see `LeNet5.maps`.

        Args:
          image: Image as the dataset has them, uint8 [H, W, C].

        Returns:
          float32 [H', W', maps] by the name of the layer.
        """
        maps: Mapping[str, tf.Tensor] = self._maps(tf.constant(image[None]))
        return {name: tf.cast(m[0], tf.float32).numpy() for name, m in maps.items()}

    @functools.cached_property
    def _predict(self) -> tf.types.experimental.ConcreteFunction:
        return self._function(self.model.predict)

    @functools.cached_property
    def _maps(self) -> tf.types.experimental.ConcreteFunction:
        return self._function(self.model.maps)

    def _function(
        self, call: tf.types.experimental.Callable
    ) -> tf.types.experimental.ConcreteFunction:
        # Traced here: of functions that are traced when they are called, TensorFlow
        # takes those of several networks for one that is traced too often.
        spec = tf.TensorSpec([None, *self.splits.image_shape], tf.uint8)
        function = tf.function(lambda images: call(standardize(images)))
        return function.get_concrete_function(spec)


def load_network(workdir: pathlib.Path | str, which: str = "best") -> Network:
    """Loads the network of a run; averaged weights if the run has them.

    Args:
      workdir: Directory of the run.
      which: Checkpoint of the run, "best" or "latest".

    Raises:
      UsageError: The directory holds no run, or no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    config = read_run(workdir).config
    if config is None:
        raise UsageError(
            f"workdir {workdir} holds a run of another model: this is for runs of "
            "LeNet-5, as from lenet_tf.run"
        )
    path = find_checkpoint(workdir, which)
    splits = load_splits(config)
    model = build_model(config, splits)
    while True:
        try:
            restore_model(model, path)
        except CheckpointError:
            # A run that goes on may have replaced the checkpoint by a newer one.
            before, path = path, find_checkpoint(workdir, which)
            if path == before:
                raise
        else:
            step = tf.train.load_checkpoint(path).get_tensor(_STEP)
            return Network(model, config, splits, int(step))
