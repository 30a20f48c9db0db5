"""Models for use elsewhere, without this library."""

from lenet_tf.export.litert_file import litert as litert
from lenet_tf.export.onnx_file import onnx as onnx
from lenet_tf.export.writing import Exported as Exported
from lenet_tf.export.writing import saved_model as saved_model
