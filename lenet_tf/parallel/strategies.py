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
import signal
import threading

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster, reachability

STRATEGIES = ("auto", "mirrored", "one_device", "multi_worker", "tpu")


def make_strategy(
    num_replicas: int | str = "auto",
    kind: str = "auto",
    *,
    worker_timeout: float = 60.0,
) -> tf.distribute.Strategy:
    """Makes the strategy for this machine, or for this worker of a cluster.

    Args:
      num_replicas: how many replicas on this machine, or "auto" for as many as there
        are devices. Workers of a cluster and TPUs take all they have.
      kind: one of
        - "mirrored": one replica a GPU, or else a CPU core;
        - "one_device": one replica, on the first GPU or the CPU;
        - "multi_worker": one replica a GPU of each worker, or one a worker without
          GPUs; the workers are those of TF_CONFIG or of a Slurm job step;
        - "tpu": one replica a TPU core, by TPU_NAME or the machine's own TPU. Made as
          TensorFlow documents it, but never run: there was no TPU to run it on;
        - "auto": "multi_worker" when there are several workers, else "mirrored".
      worker_timeout: seconds to wait for the other workers to start.

    Returns:
      The strategy; `strategy.num_replicas_in_sync` is the number of replicas.

    Raises:
      UsageError: not a number above 0, more than there are devices, an unknown kind,
        TensorFlow has started already with fewer CPU devices, the cluster is not as it
        must be, a worker does not answer, or there is no TPU.
    """
    if kind not in STRATEGIES:
        raise UsageError(f"strategy is {kind!r}: choose one of {', '.join(STRATEGIES)}")
    if kind in ("auto", "multi_worker"):
        resolver = cluster.find()
        if resolver is not None:
            return _multi_worker(num_replicas, resolver, worker_timeout)
    if kind == "multi_worker":
        raise UsageError(
            "strategy is multi_worker, but there is no other worker: set TF_CONFIG to "
            f"{cluster.FORM}, or start with srun or scripts/launch_local.py"
        )
    if kind == "tpu":
        return _tpu(num_replicas)
    if kind == "one_device":
        _only_auto(num_replicas, kind, 1)
        gpus = tf.config.list_physical_devices("GPU")
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    return _mirrored(num_replicas)


def _mirrored(num_replicas: int | str) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    available = len(gpus) or _cpu_device_limit()
    device = "GPU" if gpus else "CPU"
    count = available if num_replicas == "auto" else _as_count(num_replicas)
    if count > available:
        raise UsageError(
            f"num_replicas is {count}: this machine has {available} {device} "
            f"device{'s' if available > 1 else ''}; ask for at most that many, or auto"
        )
    devices = [f"{device}:{i}" for i in range(count)]
    if gpus:
        return tf.distribute.MirroredStrategy(devices)
    _split_cpu(count)
    # oneDNN's backward convolutions are else made anew in every step, to save memory
    # that a network of this size does not need: 5 % of a step. Read at the first one.
    os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "false")
    # The default for CPU devices are collective ops, whose state is the process's: one
    # error, or a second strategy of another size, and no collective works any more.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _multi_worker(
    num_replicas: int | str, resolver: cluster.Resolver, timeout: float
) -> tf.distribute.Strategy:
    local = max(1, resolver.num_accelerators()["GPU"])
    _only_auto(num_replicas, "multi_worker", local)
    cluster.check_proxies(resolver)
    reachability.meet(resolver, timeout)
    try:
        with reachability.Watch(resolver):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the workers could not be joined ({reason}): call make_strategy before "
            "any other TensorFlow operation, and start all workers anew"
        ) from error
    # TensorFlow has put its own handler in place, which waits for its coordinator.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def _tpu(num_replicas: int | str) -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "")
    if not name and not tf.config.list_physical_devices("TPU"):
        raise UsageError(
            "strategy is tpu, but this machine has none: set TPU_NAME to the name or "
            "the grpc://host:port of one, or choose another strategy"
        )
    try:
        address = name.removeprefix("grpc://")
        # TensorFlow would wait for it without end.
        if address != name and not reachability.answers(address, timeout=10.0):
            raise OSError("no connection")
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ImportError, OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UsageError(
            f"TPU_NAME is {name!r}, and no TPU answers to it "
            f"({str(error).splitlines()[0]}): set it to the name of one that is ready"
        ) from error
    strategy = tf.distribute.TPUStrategy(resolver)
    _only_auto(num_replicas, "tpu", strategy.num_replicas_in_sync)
    return strategy


def _only_auto(num_replicas: int | str, kind: str, count: int) -> None:
    if num_replicas != "auto" and _as_count(num_replicas) != count:
        raise UsageError(
            f"num_replicas is {num_replicas}, but {kind} takes {count} on this "
            "machine: leave it at auto"
        )


def on_gpu(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether the replicas are GPUs."""
    return any("GPU" in device for device in strategy.extended.worker_devices)


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
        if "TF_NUM_INTRAOP_THREADS" not in os.environ:  # the user's word comes first
            threads = max(1, _cores() // count)
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        if count == 1:
            return  # TensorFlow started with its one CPU device, which is enough
        raise UsageError(
            f"num_replicas is {count}, but TensorFlow has started with one CPU device: "
            "call make_strategy before any other TensorFlow operation"
        ) from error
