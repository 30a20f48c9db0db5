"""The devices and workers that train, and sums over them."""

from lenet_tf.parallel.collectives import all_reduce_sum as all_reduce_sum
from lenet_tf.parallel.collectives import local_assign as local_assign
from lenet_tf.parallel.collectives import local_assign_add as local_assign_add
from lenet_tf.parallel.collectives import value_of as value_of
from lenet_tf.parallel.strategies import make_strategy as make_strategy
from lenet_tf.parallel.workers import check_alike as check_alike
from lenet_tf.parallel.workers import is_chief as is_chief
from lenet_tf.parallel.workers import same_steps as same_steps
from lenet_tf.parallel.workers import together as together
