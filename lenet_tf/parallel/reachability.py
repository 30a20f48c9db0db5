"""Whether the workers of a run answer, and whether one was lost.

    meet(resolver, timeout=60)            # until every worker listens
    with Watch(resolver):                 # ends this process when one is lost
        ...

TensorFlow waits for ever for a worker that does not come, and for a chief that has
died. Here plain TCP connections go to the addresses in the cluster, outside TensorFlow,
so that it holds whatever TensorFlow is blocked in.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from lenet_tf.errors import UsageError
from lenet_tf.parallel.cluster import Resolver, addresses, own_name, split_address

LOST_SECONDS = 10.0


def meet(resolver: Resolver, timeout: float) -> None:
    """Waits until every worker of the cluster listens at its address.

    Until then this worker listens itself, and afterwards leaves its port to TensorFlow.

    Args:
      resolver: of the cluster.
      timeout: seconds to wait.

    Raises:
      UsageError: this worker's port is taken, or some do not answer in time.
    """
    everyone = addresses(resolver)
    own = everyone.pop(own_name(resolver))
    deadline = time.monotonic() + timeout
    with _listen(own):
        while everyone:
            left = deadline - time.monotonic()
            everyone = {
                name: address
                for name, address in everyone.items()
                if not answers(address, min(1.0, max(left, 0.1)))
            }
            if everyone and left <= 0:
                silent = ", ".join(f"{n} at {a}" for n, a in everyone.items())
                raise UsageError(
                    f"no answer within {timeout:g} s from {silent}: start every worker "
                    "of the cluster, or give them longer with --worker_timeout"
                )
            time.sleep(0.1 if everyone else 0)


class Watch:
    """Ends this process, with a line and status 1, when another worker is lost.

        with Watch(resolver) as watch:
            ...                           # what may wait for another worker
            watch.stop()                  # from here on they part in peace

    A thread asks every other worker for a connection every second or so. One that has
    not answered for LOST_SECONDS is lost: when a process dies its port closes. When the
    context is left by an error the watch goes on, for TensorFlow may wait at its exit.

    Args:
      resolver: of the cluster.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._others = addresses(resolver)
        del self._others[own_name(resolver)]
        self._stopped = threading.Event()

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.stop()

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()

    def _run(self) -> None:
        answered = dict.fromkeys(self._others, time.monotonic())
        while not self._stopped.wait(1.0):
            for name, address in self._others.items():
                if answers(address, timeout=5.0):
                    answered[name] = time.monotonic()
                lost = time.monotonic() - answered[name] > LOST_SECONDS
                if lost and not self._stopped.is_set():
                    print(f"error: {lost_line(name, address)}", file=sys.stderr)
                    sys.stderr.flush()
                    os._exit(1)  # the main thread is in TensorFlow, and stays there


def lost_line(name: str = "a worker", address: str = "") -> str:
    """Says that a worker was lost, and what to do."""
    return (
        f"{name}{' at ' if address else ''}{address} was lost: start all workers again "
        "with the same command, and the run goes on from its last checkpoint"
    )


def _listen(address: str) -> socket.socket:
    _, port = split_address(address)
    listener = socket.socket()
    # As TensorFlow's server does: a connection that has just ended blocks no port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} of {address} cannot be opened ({error.strerror}): end the "
            "process that has it, an earlier worker perhaps, or choose another port"
        ) from error
    listener.listen()
    return listener


def answers(address: str, timeout: float) -> bool:
    """Whether something listens at host:port; asks for at most `timeout` seconds."""
    try:
        socket.create_connection(split_address(address), timeout).close()
    except OSError:
        return False
    return True
