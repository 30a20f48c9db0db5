"""Datasets by name, and global batches from arrays or `tf.data` datasets."""

from lenet_tf.data.batches import Batches as Batches
from lenet_tf.data.datasets import Examples as Examples
from lenet_tf.data.datasets import Splits as Splits
from lenet_tf.data.datasets import load as load
from lenet_tf.data.datasets import prepare as prepare
from lenet_tf.data.opening import SourceLike as SourceLike
from lenet_tf.data.random_access import RandomAccess as RandomAccess
from lenet_tf.data.records import Records as Records
from lenet_tf.data.sources import Block as Block
from lenet_tf.data.sources import IndexedSource as IndexedSource
