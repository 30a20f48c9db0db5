"""The workers of a run: who they are, by TF_CONFIG or Slurm.

    resolver = find()                     # None when there is no other worker
    check_proxies(resolver)
    addresses(resolver)                   # {"worker 0": "host1:2222", ...}

All is checked here, before TensorFlow sees it: it would wait for ever for what is not
there.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable
from typing import Any, TypeAlias

import tensorflow as tf

from lenet_tf.errors import UsageError

Resolver: TypeAlias = "tf.distribute.cluster_resolver.ClusterResolver"

JOBS = ("chief", "worker")
FORM = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
SLURM_PORT = 8888
# In the order in which gRPC asks for them; it takes the first.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def find() -> Resolver | None:
    """Finds the cluster that this process is a worker of: by TF_CONFIG, else Slurm.

    Returns:
      Its resolver, or None when there is no other worker.

    Raises:
      UsageError: TF_CONFIG or Slurm's variables are not as they must be.
    """
    if os.environ.get("TF_CONFIG"):
        resolver = from_tf_config(os.environ["TF_CONFIG"])
    elif os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        resolver = from_slurm()
    else:
        return None
    return resolver if len(addresses(resolver)) > 1 else None


def from_tf_config(text: str) -> Resolver:
    """Reads the cluster from a TF_CONFIG.

    Args:
      text: JSON: `cluster`, with addresses of `worker` and perhaps one `chief`; and
        `task`, with the `type` and `index` of this process.

    Raises:
      UsageError: it is anything else.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _wrong(f"is {config!r}")
    for key in ("cluster", "task"):
        if not isinstance(config.get(key), dict) or not config[key]:
            raise _wrong(f"has {config.get(key)!r} as its {key!r}")
    jobs, task = config["cluster"], config["task"]
    for job, listed in jobs.items():
        if job not in JOBS:
            raise _wrong(f"has {job!r} in its cluster, where only {_or(JOBS)} may be")
        if not isinstance(listed, list) or not listed:
            raise _wrong(f"has {listed!r} as its {job!r}")
        for address in listed:
            split_address(address)
    if len(jobs.get("chief", ())) > 1:
        raise _wrong(f"has {len(jobs['chief'])} chiefs, where one may be")
    everyone = [address for listed in jobs.values() for address in listed]
    for address in everyone:
        if everyone.count(address) > 1:
            raise _wrong(f"has {address!r} twice")
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs:
        raise _wrong(f"has {kind!r} as its task's type; its cluster has {_or(jobs)}")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or not 0 <= index < len(jobs[kind]):
        raise _wrong(
            f"has {index!r} as its task's index; its cluster has {kind} 0 to "
            f"{len(jobs[kind]) - 1}"
        )
    return _resolver(jobs, kind, index)


def from_slurm() -> Resolver:
    """Reads the cluster from the variables that `srun` sets, by TensorFlow's resolver.

    Every task of the job step is a worker, on port 8888 of its node or the ones above.
    TensorFlow takes the nodes in alphabetical order, and the tasks of a node to have
    successive ranks (srun's default, --distribution=block).

    Raises:
      UsageError: a variable is missing or has an unexpected form, or TensorFlow's order
        of the nodes is not Slurm's.
    """
    try:
        slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=SLURM_PORT,
            # Without numbers it runs nvidia-smi, and without GPUs it fails. They are
            # made up: the GPUs are counted below, as everywhere.
            gpus_per_node=1024,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        jobs = slurm.cluster_spec().as_dict()
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"Slurm's variables tell of no cluster ({error}): start the workers with "
            "srun, or set TF_CONFIG"
        ) from error
    if slurm.task_type is None:
        raise UsageError(
            f"SLURM_PROCID is {os.environ['SLURM_PROCID']}: the step has tasks 0 to "
            f"{len(jobs['worker']) - 1}"
        )
    own, node = jobs["worker"][slurm.task_id], os.environ.get("SLURMD_NODENAME")
    if node and own.rpartition(":")[0] != node:
        raise UsageError(
            f"SLURMD_NODENAME is {node}, but TensorFlow, which sorts nodes by name, "
            f"expects this task at {own}: use --distribution=block and nodes that "
            "Slurm sorts alike, or set TF_CONFIG"
        )
    return _resolver(jobs, "worker", slurm.task_id)


def addresses(resolver: Resolver) -> dict[str, str]:
    """Returns name -> address of all workers, the chief's first: {"worker 0": ...}."""
    jobs = resolver.cluster_spec().as_dict()
    return {f"{job} {i}": a for job in sorted(jobs) for i, a in enumerate(jobs[job])}


def own_name(resolver: Resolver) -> str:
    """Returns the name of this worker, as in `addresses`."""
    return f"{resolver.task_type} {resolver.task_id}"


def is_chief(resolver: Resolver) -> bool:
    """Whether this worker is the one that writes: the chief, else worker 0."""
    return own_name(resolver) == next(iter(addresses(resolver)))


def check_proxies(resolver: Resolver) -> None:
    """Refuses a proxy that would catch what workers send each other.

    Raises:
      UsageError: there is one; the line tells what `no_proxy` must be.
    """
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    if proxy is None:
        return
    name = next((name for name in _EXCEPTIONS if os.environ.get(name)), "no_proxy")
    free = [entry.strip() for entry in os.environ.get(name, "").split(",")]
    free = [entry for entry in free if entry]
    hosts = dict.fromkeys(split_address(a)[0] for a in addresses(resolver).values())
    caught = [host for host in hosts if not any(_covers(entry, host) for entry in free)]
    if caught:
        raise UsageError(
            f"{proxy} is {os.environ[proxy]}, which would catch the connections to "
            f"{', '.join(caught)}: set {name}={','.join([*free, *caught])}"
        )


def _wrong(what: str) -> UsageError:
    return UsageError(f"TF_CONFIG {what}: its form is {FORM}")


def _or(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def _resolver(jobs: dict[str, list[str]], task_type: str, task_id: int) -> Resolver:
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs),
        task_type=task_type,
        task_id=task_id,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def split_address(address: Any) -> tuple[str, int]:
    """Returns the host and the port of an address in a TF_CONFIG.

    Raises:
      UsageError: it has another form.
    """
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("",) * 3
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _wrong(f"has {address!r}, where host:port must be, port 1 to 65535")
    return host, int(port)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of no_proxy keeps a host from the proxy, as gRPC sees it."""
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
