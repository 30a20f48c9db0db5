"""Starts several workers here; the same as `python -m lenet_tf launch_local`."""

from lenet_tf.cli.launch_local import main

main()
