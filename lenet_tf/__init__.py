"""The training loop in your own hands: plain TensorFlow, from tf.data to checkpoints.

import lenet_tf

strategy = lenet_tf.make_strategy("auto")
splits = lenet_tf.load("mnist")
with strategy.scope():
    model = lenet_tf.LeNet5()
trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), strategy=strategy)
trainer.fit(lenet_tf.as_batches(splits.train, 64, seed=0), epochs=3)
"""

from lenet_tf.actions import Moment as Moment
from lenet_tf.actions import at as at
from lenet_tf.actions import every_epoch as every_epoch
from lenet_tf.actions import every_seconds as every_seconds
from lenet_tf.actions import every_steps as every_steps
from lenet_tf.actions.history import HistoryFile as HistoryFile
from lenet_tf.actions.progress import Progress as Progress
from lenet_tf.best import BestCheckpoints as BestCheckpoints
from lenet_tf.build import as_batches as as_batches
from lenet_tf.checkpoints import LatestCheckpoints as LatestCheckpoints
from lenet_tf.config import Config as Config
from lenet_tf.datasets import Examples as Examples
from lenet_tf.datasets import Splits as Splits
from lenet_tf.datasets import load as load
from lenet_tf.datasets import prepare as prepare
from lenet_tf.distribute import all_reduce_sum as all_reduce_sum
from lenet_tf.distribute import make_strategy as make_strategy
from lenet_tf.errors import CheckpointError as CheckpointError
from lenet_tf.errors import DataError as DataError
from lenet_tf.errors import NonFiniteError as NonFiniteError
from lenet_tf.errors import UsageError as UsageError
from lenet_tf.layers import Conv2D as Conv2D
from lenet_tf.layers import Dense as Dense
from lenet_tf.layers import Subsample as Subsample
from lenet_tf.loop import EvalStep as EvalStep
from lenet_tf.loop import TrainStep as TrainStep
from lenet_tf.loop import make_loop as make_loop
from lenet_tf.losses import classification as classification
from lenet_tf.losses import softmax_cross_entropy as softmax_cross_entropy
from lenet_tf.metrics import Accumulators as Accumulators
from lenet_tf.metrics import confusion as confusion
from lenet_tf.metrics import correct as correct
from lenet_tf.models import LeNet5 as LeNet5
from lenet_tf.optimizers import SGD as SGD
from lenet_tf.optimizers import Adam as Adam
from lenet_tf.optimizers import Optimizer as Optimizer
from lenet_tf.pipeline import Batches as Batches
from lenet_tf.pipeline import standardize as standardize
from lenet_tf.recipes import recipe as recipe
from lenet_tf.report import write_curves as write_curves
from lenet_tf.run import evaluate as evaluate
from lenet_tf.run import run as run
from lenet_tf.saver import Saver as Saver
from lenet_tf.signals import StopSignals as StopSignals
from lenet_tf.stateless import dropout as dropout
from lenet_tf.stateless import uniform as uniform
from lenet_tf.summary import summary as summary
from lenet_tf.trainer import Trainer as Trainer
