"""Trains LeNet-5; the same as `python -m lenet_tf train`."""

from lenet_tf.cli.train import main

main()
