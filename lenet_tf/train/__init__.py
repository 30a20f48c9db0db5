"""The training step, the loops that run it, metrics, saving, and actions."""

from lenet_tf.train.actions import Action as Action
from lenet_tf.train.actions import Enough as Enough
from lenet_tf.train.actions import Moment as Moment
from lenet_tf.train.actions import When as When
from lenet_tf.train.actions import at as at
from lenet_tf.train.actions import every_epoch as every_epoch
from lenet_tf.train.actions import every_seconds as every_seconds
from lenet_tf.train.actions import every_steps as every_steps
from lenet_tf.train.actions.history import HistoryFile as HistoryFile
from lenet_tf.train.actions.progress import Progress as Progress
from lenet_tf.train.finite import all_finite as all_finite
from lenet_tf.train.gradients import clipped as clipped
from lenet_tf.train.gradients import mean_gradients as mean_gradients
from lenet_tf.train.metrics import Accumulators as Accumulators
from lenet_tf.train.metrics import weighted_sums as weighted_sums
from lenet_tf.train.saver import Saver as Saver
from lenet_tf.train.state import RunRecord as RunRecord
from lenet_tf.train.state import TrainState as TrainState
from lenet_tf.train.step import Step as Step
from lenet_tf.train.step import TrainStep as TrainStep
from lenet_tf.train.trainer import History as History
from lenet_tf.train.trainer import Trainer as Trainer
from lenet_tf.train.update import Update as Update
