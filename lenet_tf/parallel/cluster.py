"""The workers of a run, as TF_CONFIG or Slurm describes them.

    resolver = find_cluster()             # None when there is no other worker
    check_proxies(resolver)
    addresses(resolver)                   # {"worker 0": "host1:2222", ...}

Everything is checked here, before TensorFlow reads it: TensorFlow would wait forever
for a worker whose address is wrong.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import reprlib
from collections.abc import Iterable
from typing import TypeAlias

import tensorflow as tf

from lenet_tf.errors import UsageError

Resolver: TypeAlias = "tf.distribute.cluster_resolver.ClusterResolver"

JOBS = ("chief", "worker")
FORM = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
SLURM_PORT = 8888
# In the order in which gRPC looks for them; it uses the first that is set.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
# A label of a host name, by RFC 1123; underscores are common in container names.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_MAX_HOST = 253  # characters of a host name
_repr = reprlib.Repr()  # shortens what is long and what is nested deeply
_repr.maxstring = 80


def find_cluster() -> Resolver | None:
    """Finds the cluster of this process, from TF_CONFIG or else from Slurm.

    Returns:
      The resolver of the cluster, or None when there is no other worker.

    Raises:
      UsageError: TF_CONFIG or one of Slurm's variables is malformed.
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
      text: JSON object with `cluster`, which has the addresses of `worker` and of at
        most one `chief`, and `task`, which has the `type` and `index` of this process.

    Raises:
      UsageError: The text does not have this form.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _malformed(f"is {_repr.repr(config)}")
    for key in ("cluster", "task"):
        if not isinstance(config.get(key), dict) or not config[key]:
            raise _malformed(f"has {_repr.repr(config.get(key))} as its {key!r}")
    jobs, task = config["cluster"], config["task"]
    for job, listed in jobs.items():
        if job not in JOBS:
            raise _malformed(
                f"has {_repr.repr(job)} in its cluster, where only {_or(JOBS)} may be"
            )
        if not isinstance(listed, list) or not listed:
            raise _malformed(f"has {_repr.repr(listed)} as its {job!r}")
        for address in listed:
            split_address(address)
    if len(jobs.get("chief", ())) > 1:
        raise _malformed(f"has {len(jobs['chief'])} chiefs, where one may be")
    everyone = [address for listed in jobs.values() for address in listed]
    if len(set(everyone)) < len(everyone):
        twice = next(a for i, a in enumerate(everyone) if a in everyone[:i])
        raise _malformed(f"has {twice!r} twice")
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in jobs:
        raise _malformed(
            f"has {_repr.repr(job)} as its task's type; its cluster has {_or(jobs)}"
        )
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)
    # JSON's true is an int to Python.
    if type(index) is not int or not 0 <= index < len(jobs[job]):
        raise _malformed(
            f"has {_repr.repr(index)} as its task's index; its cluster has {job} 0 to "
            f"{len(jobs[job]) - 1}"
        )
    return _resolver(jobs, job, index)


def from_slurm() -> Resolver:
    """Reads the cluster from srun's environment variables, with TensorFlow's resolver.

    Every task of the job step is a worker. The first worker of a node listens on port
    8888, the others on the ports above. TensorFlow sorts the nodes by name and expects
    the tasks of a node to have successive ranks (srun's default,
    --distribution=block).

    Raises:
      UsageError: A variable is missing or malformed, or Slurm's order of the nodes is
        not TensorFlow's.
    """
    try:
        slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=SLURM_PORT,
            # Without these numbers it runs nvidia-smi, and fails if there is none. They
            # have no other effect: `_resolver` counts the GPUs.
            gpus_per_node=1024,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        jobs = slurm.cluster_spec().as_dict()
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"Slurm's variables describe no cluster ({error}): start the workers with "
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
            "Slurm sorts by name too, or set TF_CONFIG"
        )
    return _resolver(jobs, "worker", slurm.task_id)


def addresses(resolver: Resolver) -> dict[str, str]:
    """Returns name -> address of all workers, the chief first: {"worker 0": ...}."""
    jobs = resolver.cluster_spec().as_dict()
    return {f"{job} {i}": a for job in sorted(jobs) for i, a in enumerate(jobs[job])}


def own_name(resolver: Resolver) -> str:
    """Returns the name of this worker, as in `addresses`."""
    return f"{resolver.task_type} {resolver.task_id}"


def is_chief(resolver: Resolver) -> bool:
    """Whether this worker is the chief, or worker 0 of a cluster without a chief."""
    return own_name(resolver) == next(iter(addresses(resolver)))


def check_proxies(resolver: Resolver) -> None:
    """Checks that no proxy would intercept the workers' connections.

    Raises:
      UsageError: There is one; the message says what `no_proxy` must be.
    """
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    if proxy is None:
        return
    name = next((name for name in _EXCEPTIONS if os.environ.get(name)), "no_proxy")
    entries = [entry.strip() for entry in os.environ.get(name, "").split(",")]
    entries = [entry for entry in entries if entry]
    hosts = dict.fromkeys(split_address(a)[0] for a in addresses(resolver).values())
    caught = [h for h in hosts if not any(_covers(entry, h) for entry in entries)]
    if caught:
        raise UsageError(
            f"{proxy} is {os.environ[proxy]}, which would intercept the connections "
            f"to {', '.join(caught)}: set {name}={','.join([*entries, *caught])}"
        )


def split_address(address: object) -> tuple[str, int]:
    """Returns the host, without brackets, and the port of an address in a TF_CONFIG.

    Raises:
      UsageError: The address is not `name:port`, `1.2.3.4:port` or `[::1]:port`.
    """
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("",) * 3
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    known = _is_ipv6(bare) if bare != host else _is_host_name(host)
    if not known or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise _malformed(
            f"has {_repr.repr(address)}, where host:port must be, port 1 to 65535, an "
            "IPv6 address in brackets"
        )
    return bare, int(port)


def _malformed(what: str) -> UsageError:
    return UsageError(f"TF_CONFIG {what}: its form is {FORM}")


def _or(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def _resolver(jobs: dict[str, list[str]], task_type: str, task_id: int) -> Resolver:
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs),
        task_type=task_type,
        task_id=task_id,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _is_host_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return len(host) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels))


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of no_proxy keeps a host from the proxy, as gRPC decides it."""
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
