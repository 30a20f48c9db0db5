"""Names, files, arrays and streams become global batches."""

from lenet_tf.data.batches import Batches as Batches
from lenet_tf.data.batches import Block as Block
from lenet_tf.data.datasets import Examples as Examples
from lenet_tf.data.datasets import Splits as Splits
from lenet_tf.data.datasets import load as load
from lenet_tf.data.datasets import prepare as prepare
