"""Evaluates the weights of a run; the same as `python -m lenet_tf evaluate`."""

from lenet_tf.cli.evaluate import main

main()
