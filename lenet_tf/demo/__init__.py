"""A page on which one draws a digit, and sees what networks make of it."""

from lenet_tf.demo.answers import Answers as Answers
from lenet_tf.demo.server import DemoServer as DemoServer
