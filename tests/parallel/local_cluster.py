"""Starts the workers of a cluster on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence

from programs import Program


def cluster_of(count: int) -> dict[str, list[str]]:
    """A cluster on free ports of this machine."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]}


def tf_config(cluster: dict[str, list[str]], index: int, kind: str = "worker") -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@contextlib.contextmanager
def workers(script: str, *flags: str, count: int = 2) -> Iterator[Sequence[Program]]:
    """Starts workers; none is left when the context ends."""
    cluster = cluster_of(count)
    programs = [
        Program(script, *flags, environment={"TF_CONFIG": tf_config(cluster, i)})
        for i in range(count)
    ]
    try:
        yield programs
    finally:
        for program in programs:
            if program.alive():
                os.kill(program.pid, signal.SIGKILL)
