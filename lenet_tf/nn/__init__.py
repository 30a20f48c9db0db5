"""Models and their parts: layers, losses, distortions, random numbers."""

from lenet_tf.nn.activations import ACTIVATIONS as ACTIVATIONS
from lenet_tf.nn.batch_norm import BatchNorm as BatchNorm
from lenet_tf.nn.distortion import Distortion as Distortion
from lenet_tf.nn.fast_ops import plain_forms as plain_forms
from lenet_tf.nn.images import scale_pixels as scale_pixels
from lenet_tf.nn.images import standardize as standardize
from lenet_tf.nn.layers import Conv2D as Conv2D
from lenet_tf.nn.layers import Dense as Dense
from lenet_tf.nn.layers import Subsample as Subsample
from lenet_tf.nn.layers import glorot_uniform as glorot_uniform
from lenet_tf.nn.lenet import LeNet5 as LeNet5
from lenet_tf.nn.losses import Forward as Forward
from lenet_tf.nn.losses import classification as classification
from lenet_tf.nn.losses import confusion as confusion
from lenet_tf.nn.losses import correct as correct
from lenet_tf.nn.losses import distorted_classification as distorted_classification
from lenet_tf.nn.losses import softmax_cross_entropy as softmax_cross_entropy
from lenet_tf.nn.random import dropout as dropout
from lenet_tf.nn.random import uniform as uniform
from lenet_tf.nn.summaries import summary as summary
