"""Chooses the devices that train, and makes a `tf.distribute.Strategy` of them.

    strategy = make_strategy("auto")      # one replica for each GPU, or CPU core
    with strategy.scope():
        model = LeNet5()

Replicas are devices, and a CPU core is a device: without GPUs the cores become logical
CPU devices with one intra-op thread each, which is faster for small networks than one
replica with all threads. Devices and threads are fixed once TensorFlow has started, so
`make_strategy` comes before the first operation.
"""

from __future__ import annotations

import os
import signal
import threading

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster
from lenet_tf.parallel.links import links_of
from lenet_tf.parallel.meeting import meet
from lenet_tf.parallel.watch import Watch
from lenet_tf.signals import in_notebook

STRATEGIES = ("auto", "mirrored", "one_device", "multi_worker")
# Fewest examples of a global batch for each replica that "auto" makes. With fewer, the
# all-reduce takes more time than another replica saves.
MIN_EXAMPLES = 16


def make_strategy(
    num_replicas: int | str = "auto",
    kind: str = "auto",
    *,
    batch_size: int | None = None,
    worker_timeout: float = 60.0,
    deterministic: bool = False,
) -> tf.distribute.Strategy:
    """Makes the strategy for this machine, or for this worker of a cluster.

    Args:
      num_replicas: Number of replicas on this machine. "auto" makes one for each
        device, but with a `batch_size` at most one for each 16 examples of a batch.
        Workers of a cluster take all their devices.
      kind: Kind of strategy, one of
        - "mirrored": one replica for each GPU, or for each CPU core without GPUs;
        - "one_device": one replica, on the first GPU or the CPU;
        - "multi_worker": one replica for each GPU of each worker, or one for each
          worker without GPUs; the workers are those of TF_CONFIG or of a Slurm step;
        - "auto": "multi_worker" when there are several workers, else "mirrored".
      batch_size: Number of examples in a global batch, if it is known.
      worker_timeout: Longest time to wait for the other workers to start, in seconds.
      deterministic: Whether operations give the same bits each time they are run, on
        GPUs too (`tf.config.experimental.enable_op_determinism`). It holds for the
        whole process, until its end. An operation that cannot do so raises
        `tf.errors.UnimplementedError`, and a random one without a seed RuntimeError.

    Returns:
      The strategy; `strategy.num_replicas_in_sync` is the number of replicas.

    Raises:
      UsageError: The number of replicas is below 1, or above the number of devices or
        `batch_size`; the kind is unknown; TensorFlow has already started with fewer
        CPU devices; the cluster is malformed, or a worker does not start in time.
    """
    if kind not in STRATEGIES:
        raise UsageError(f"strategy is {kind!r}: choose one of {', '.join(STRATEGIES)}")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    resolver = cluster.find_cluster() if kind in ("auto", "multi_worker") else None
    if resolver is not None:
        strategy = _multi_worker(num_replicas, resolver, worker_timeout)
    elif kind == "multi_worker":
        raise UsageError(
            "strategy is multi_worker, but there is no other worker: set TF_CONFIG to "
            f"{cluster.FORM}, or start with srun or `python -m lenet_tf launch_local`"
        )
    elif kind == "one_device":
        _only_auto(num_replicas, kind, 1)
        strategy = tf.distribute.OneDeviceStrategy("GPU:0" if _gpus() else "CPU:0")
    else:
        strategy = _mirrored(num_replicas, batch_size)
    replicas = strategy.num_replicas_in_sync
    if batch_size is not None and batch_size < replicas:
        raise UsageError(
            f"batch_size is {batch_size}: it must be at least num_replicas, which is "
            f"{replicas}"
        )
    return strategy


def on_gpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas are GPUs."""
    return any("GPU" in device for device in strategy.extended.worker_devices)


def _mirrored(
    num_replicas: int | str, batch_size: int | None
) -> tf.distribute.Strategy:
    gpus = _gpus()
    available = gpus or _cpu_device_limit()
    device = "GPU" if gpus else "CPU"
    if num_replicas != "auto":
        count = _as_count(num_replicas)
    elif batch_size is None:
        count = available
    else:
        count = min(available, max(1, batch_size // MIN_EXAMPLES))
    if count > available and not gpus and _configured_cpus():
        raise UsageError(
            f"num_replicas is {count}: this process was set up with {available} CPU "
            f"device{'s' if available > 1 else ''} before, as by an earlier "
            "make_strategy: ask for at most that many, or for the most at first"
        )
    if count > available:
        raise UsageError(
            f"num_replicas is {count}: this machine has {available} {device} "
            f"device{'s' if available > 1 else ''}; ask for at most that many, or auto"
        )
    devices = [f"{device}:{i}" for i in range(count)]
    if gpus:
        return tf.distribute.MirroredStrategy(devices)
    _split_cpu(count)
    # By default TensorFlow makes oneDNN's backward convolutions anew in every step. It
    # saves memory, but takes 5 % of a small network's step. TensorFlow reads the
    # environment variable at the first convolution.
    os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "false")
    # For CPU devices the default is collective ops, which keep state in the process:
    # after one error, or a second strategy of another size, they no longer work.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _multi_worker(
    num_replicas: int | str, resolver: cluster.Resolver, timeout: float
) -> tf.distribute.Strategy:
    local = max(1, resolver.num_accelerators()["GPU"])
    _only_auto(num_replicas, "multi_worker", local)
    cluster.check_proxies(resolver)
    links = meet(resolver, timeout)
    try:
        with Watch(links):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the workers could not be joined ({reason}): {_call_it_first()}, and "
            "start all workers again"
        ) from error
    links_of[strategy] = links
    # TensorFlow has installed a C++ handler, which waits for its coordinator. This
    # installs Python's again.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def _only_auto(num_replicas: int | str, kind: str, count: int) -> None:
    if num_replicas != "auto" and _as_count(num_replicas) != count:
        raise UsageError(
            f"num_replicas is {num_replicas}, but {kind} takes {count} on this "
            "machine: leave it at auto"
        )


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


def _gpus() -> int:
    """Returns the number of GPUs that the program has not hidden from TensorFlow."""
    return len(tf.config.get_visible_devices("GPU"))


def _cores() -> int:
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


def _configured_cpus() -> int:
    """Returns the number of logical CPU devices configured before, 0 for none."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    return len(tf.config.get_logical_device_configuration(cpu) or ())


def _cpu_device_limit() -> int:
    return _configured_cpus() or _cores()


def _split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices, unless there are enough."""
    if _configured_cpus() >= count:
        return
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
        if "TF_NUM_INTRAOP_THREADS" not in os.environ:  # the user's choice comes first
            threads = max(1, _cores() // count)
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        if count == 1:
            return  # TensorFlow started with its one CPU device, which is enough
        raise UsageError(
            f"num_replicas is {count}, but TensorFlow has started with one CPU device: "
            f"{_call_it_first()}"
        ) from error


def _call_it_first() -> str:
    """Returns what to do after a `make_strategy` that came too late."""
    restart = "restart the kernel, then " if in_notebook() else ""
    return f"{restart}call make_strategy before any other TensorFlow operation"
