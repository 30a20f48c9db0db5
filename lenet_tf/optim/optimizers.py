"""The optimizers under the names they had before each got a file of its own."""

from lenet_tf.optim.adam import Adam as Adam
from lenet_tf.optim.adam import AdamState as AdamState
from lenet_tf.optim.adam import AdamW as AdamW
from lenet_tf.optim.adam import adam_update as adam_update
from lenet_tf.optim.optimizer import OPTIMIZERS as OPTIMIZERS
from lenet_tf.optim.optimizer import LearningRate as LearningRate
from lenet_tf.optim.optimizer import Optimizer as Optimizer
from lenet_tf.optim.sgd import SGD as SGD
from lenet_tf.optim.sgd import sgd_update as sgd_update
