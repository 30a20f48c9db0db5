"""Models, optimizers and losses of Keras 3, on the TensorFlow backend."""

import lenet_tf.keras.backend  # noqa: F401 - first: it may refuse
from lenet_tf.keras.losses import forward as forward
from lenet_tf.keras.losses import loss as loss
from lenet_tf.keras.models import KerasModel as KerasModel
from lenet_tf.keras.models import model as model
from lenet_tf.keras.optimizers import KerasOptimizer as KerasOptimizer
from lenet_tf.keras.optimizers import optimizer as optimizer
