"""Optimizers, learning-rate schedules, clipping, averaged weights, loss scaling.

Importing an optimizer's file here registers it in `OPTIMIZERS`.
"""

from lenet_tf.optim.adam import Adam as Adam
from lenet_tf.optim.adam import AdamState as AdamState
from lenet_tf.optim.adam import AdamW as AdamW
from lenet_tf.optim.adam import adam_update as adam_update
from lenet_tf.optim.averaging import Average as Average
from lenet_tf.optim.clipping import clip_by_norm as clip_by_norm
from lenet_tf.optim.lamb import LAMB as LAMB
from lenet_tf.optim.lamb import lamb_update as lamb_update
from lenet_tf.optim.lion import Lion as Lion
from lenet_tf.optim.lion import lion_update as lion_update
from lenet_tf.optim.loss_scale import LossScale as LossScale
from lenet_tf.optim.muon import Muon as Muon
from lenet_tf.optim.muon import muon_update as muon_update
from lenet_tf.optim.optimizer import OPTIMIZERS as OPTIMIZERS
from lenet_tf.optim.optimizer import LearningRate as LearningRate
from lenet_tf.optim.optimizer import Optimizer as Optimizer
from lenet_tf.optim.rmsprop import RMSprop as RMSprop
from lenet_tf.optim.schedules import SCHEDULES as SCHEDULES
from lenet_tf.optim.schedules import Schedule as Schedule
from lenet_tf.optim.schedules import constant as constant
from lenet_tf.optim.schedules import exponential as exponential
from lenet_tf.optim.schedules import one_cycle as one_cycle
from lenet_tf.optim.schedules import parse_milestones as parse_milestones
from lenet_tf.optim.schedules import piecewise as piecewise
from lenet_tf.optim.schedules import polynomial as polynomial
from lenet_tf.optim.schedules import warmup_cosine as warmup_cosine
from lenet_tf.optim.sgd import SGD as SGD
from lenet_tf.optim.sgd import sgd_update as sgd_update
