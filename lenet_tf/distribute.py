"""Which devices train, and how their numbers come together.

    strategy = make_strategy("auto")      # one replica a GPU, or one a CPU core
    with strategy.scope():
        model = LeNet5()

Replicas are devices, and a CPU core is a device: without GPUs the cores become logical
CPU devices with one intra-op thread each, which at this size of network beats one
replica on all threads. Devices and threads are fixed once TensorFlow has started, so
`make_strategy` comes before the first operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError


def make_strategy(num_replicas: int | str = "auto") -> tf.distribute.MirroredStrategy:
    """Makes a MirroredStrategy over GPUs, or else over logical CPU devices.

    Args:
      num_replicas: how many replicas, or "auto" for as many as there are devices.

    Returns:
      The strategy; `strategy.num_replicas_in_sync` is the number of replicas.

    Raises:
      UsageError: not a number above 0, more than there are devices, or TensorFlow has
        started already with fewer CPU devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    available = len(gpus) or _cpu_device_limit()
    kind = "GPU" if gpus else "CPU"
    count = available if num_replicas == "auto" else _as_count(num_replicas)
    if count > available:
        raise UsageError(
            f"num_replicas is {count}: this machine has {available} {kind} "
            f"device{'s' if available > 1 else ''}; ask for at most that many, or auto"
        )
    devices = [f"{kind}:{i}" for i in range(count)]
    if gpus:
        return tf.distribute.MirroredStrategy(devices)
    _split_cpu(count)
    # The default for CPU devices are collective ops, whose state is the process's: one
    # error, or a second strategy of another size, and no collective works any more.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def all_reduce_sum(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums float32 tensors over the replicas, as one flat vector in one all-reduce.

    Must be called in a replica context; every replica gets the same sums.

    Args:
      tensors: float32, of static shapes.

    Returns:
      The sums, in the same order and shapes.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    sizes = [tensor.shape.num_elements() for tensor in tensors]
    flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
    parts = tf.split(context.all_reduce(tf.distribute.ReduceOp.SUM, flat), sizes)
    return [
        tf.reshape(part, tensor.shape)
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def local_handle(variable: tf.Variable) -> tf.Tensor:
    """Returns the resource of this replica's own copy of a variable.

    Every replica makes the same update from the same all-reduced numbers, so the copies
    stay alike without being sent around; `variable.assign` would send them.
    """
    return variable.handle


def local_assign_add(variable: tf.Variable, value: tf.Tensor) -> None:
    """Adds a value to this replica's own copy of a variable; see `local_handle`."""
    tf.raw_ops.AssignAddVariableOp(resource=local_handle(variable), value=value)


def _as_count(num_replicas: int | str) -> int:
    try:
        count = int(num_replicas)
    except ValueError:
        count = 0
    if count < 1:
        raise UsageError(
            f"num_replicas is {num_replicas!r}: give a number above 0, or auto"
        )
    return count


def _cores() -> int:
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


def _configured_cpus() -> int:
    """How many logical CPU devices were asked for; 0 when nobody did yet."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    return len(tf.config.get_logical_device_configuration(cpu) or ())


def _cpu_device_limit() -> int:
    return _configured_cpus() or _cores()


def _split_cpu(count: int) -> None:
    if _configured_cpus() >= count:
        return
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
        threads = max(1, _cores() // count)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        if count == 1:
            return  # TensorFlow started with its one CPU device, which is enough
        raise UsageError(
            f"num_replicas is {count}, but TensorFlow has started with one CPU device: "
            "call make_strategy before any other TensorFlow operation"
        ) from error
