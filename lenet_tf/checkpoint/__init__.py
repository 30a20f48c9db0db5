"""The latest and the best checkpoints of a run, written whole or not at all."""

from lenet_tf.checkpoint.best import BestCheckpoints as BestCheckpoints
from lenet_tf.checkpoint.latest import LatestCheckpoints as LatestCheckpoints
from lenet_tf.checkpoint.restore import Restored as Restored
from lenet_tf.checkpoint.restore import find_checkpoint as find_checkpoint
from lenet_tf.checkpoint.restore import restore_checkpoint as restore_checkpoint
from lenet_tf.checkpoint.restore import restore_model as restore_model
from lenet_tf.checkpoint.storage import find_damage as find_damage
from lenet_tf.checkpoint.storage import list_checkpoints as list_checkpoints
from lenet_tf.checkpoint.storage import newest_whole as newest_whole
from lenet_tf.checkpoint.warm_start import Loaded as Loaded
from lenet_tf.checkpoint.warm_start import load_weights as load_weights
