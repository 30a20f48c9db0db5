"""Prepares a dataset; the same as `python -m lenet_tf prepare_data`."""

from lenet_tf.cli.prepare_data import main

main()
