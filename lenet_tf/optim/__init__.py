"""Optimizers, learning-rate schedules, clipping, averaged weights, loss scaling."""

from lenet_tf.optim.averaging import Average as Average
from lenet_tf.optim.clipping import clip_by_norm as clip_by_norm
from lenet_tf.optim.loss_scale import LossScale as LossScale
from lenet_tf.optim.optimizers import SGD as SGD
from lenet_tf.optim.optimizers import Adam as Adam
from lenet_tf.optim.optimizers import AdamW as AdamW
from lenet_tf.optim.optimizers import Optimizer as Optimizer
from lenet_tf.optim.schedules import constant as constant
from lenet_tf.optim.schedules import exponential as exponential
from lenet_tf.optim.schedules import one_cycle as one_cycle
from lenet_tf.optim.schedules import piecewise as piecewise
from lenet_tf.optim.schedules import polynomial as polynomial
from lenet_tf.optim.schedules import warmup_cosine as warmup_cosine
