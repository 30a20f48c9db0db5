"""Connects the workers of a run with each other, before TensorFlow does.

    links = meet(resolver, timeout=60)    # returns when all workers have met

TensorFlow would wait forever for a worker that is not started, and would take any
program that listens at its address for the worker. So each worker first listens at its
own address and connects to all others. On every connection both sides send a greeting:
a digest of the cluster and the worker's name. The side that connected then sends one
more byte, so that a worker leaves the meeting only when all others have read its
greeting.

The connections stay open as `Links`: the system closes them when a process ends,
however it ends and whatever TensorFlow is waiting for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lenet_tf.errors import UsageError
from lenet_tf.parallel.cluster import Resolver, addresses, own_name, split_address
from lenet_tf.parallel.links import Links, is_closed

_T = TypeVar("_T")
_WAIT_SECONDS = 5.0  # longest wait for a connection, and for the greeting on it
_PROGRAM = "lenet_tf "  # begins every greeting
_MET = b"+"
_NO_ANSWER = "does not answer"


def meet(resolver: Resolver, timeout: float) -> Links:
    """Waits until all workers of the cluster have met each other.

    The worker listens at its own address in the meantime, and frees the port for
    TensorFlow at the end.

    Args:
      resolver: Resolver of the cluster, with at least two workers.
      timeout: Longest time to wait, in seconds.

    Returns:
      The connections to all other workers.

    Raises:
      UsageError: The port is taken, a worker did not start in time, another program
        listens at its address, or a worker ended while others were still missing.
    """
    return _Meeting(resolver).run(timeout)


class _Meeting:
    """One worker's side of the meeting.

    The main thread accepts connections; a thread for each other worker connects to it,
    and a thread for each accepted connection answers.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._others = addresses(resolver)
        self._name = own_name(resolver)
        self._own = self._others.pop(self._name)
        spec = json.dumps(resolver.cluster_spec().as_dict(), sort_keys=True)
        digest = hashlib.sha256(spec.encode()).hexdigest()[:16]
        self._prefix = f"{_PROGRAM}{digest} "  # of a greeting; the name follows
        self._over = threading.Event()
        self._problems = dict.fromkeys(self._others, _NO_ANSWER)
        self._opened: dict[str, socket.socket] = {}
        self._accepted: dict[str, socket.socket] = {}

    def run(self, timeout: float) -> Links:
        deadline = time.monotonic() + timeout
        try:
            with _listen(self._own) as listener:
                for name in self._others:
                    _in_thread(self._connect, name)
                listener.settimeout(0.1)
                while not self._all_have_met():
                    if time.monotonic() > deadline:
                        raise self._not_met(timeout)
                    with contextlib.suppress(OSError):
                        _in_thread(self._answer, listener.accept()[0])
        except BaseException:
            self._over.set()
            for connection in (*self._opened.values(), *self._accepted.values()):
                connection.close()
            raise
        return Links(self._others, self._opened, self._accepted)

    def _all_have_met(self) -> bool:
        for name, connection in [*self._opened.items(), *self._accepted.items()]:
            if is_closed(connection):
                raise UsageError(
                    f"{name} at {self._others[name]} ended before all workers had met: "
                    "see what it reported, and start all workers again"
                )
        return len(self._opened) == len(self._accepted) == len(self._others)

    def _not_met(self, timeout: float) -> UsageError:
        problems = self._problems | dict.fromkeys(
            self._opened, f"answers, but has not reached this worker at {self._own}"
        )
        listed = ", ".join(
            f"{name} at {address} {problems[name]}"
            for name, address in self._others.items()
            if name not in self._opened or name not in self._accepted
        )
        return UsageError(
            f"after {timeout:g} s {listed}: start every worker, all with the same "
            "cluster, or give them longer with worker_timeout"
        )

    def _connect(self, name: str) -> None:
        """Connects to a worker, again and again until it answers with its name."""
        address = self._others[name]
        while not self._over.wait(0.1):
            try:
                connection = socket.create_connection(
                    split_address(address), _WAIT_SECONDS
                )
            except OSError:
                continue
            if self._problems[name] == _NO_ANSWER:  # until a greeting comes
                self._problems[name] = _missing("another program")
            greeting = self._exchange(connection)
            if greeting == self._prefix + name:
                with contextlib.suppress(OSError):
                    connection.sendall(_MET)
                connection.setblocking(False)
                self._opened[name] = connection
                return
            if greeting.startswith(self._prefix):
                self._problems[name] = _missing(greeting.removeprefix(self._prefix))
            elif greeting.startswith(_PROGRAM):
                self._problems[name] = _missing("a worker of another cluster")
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        """Greets whoever has connected, and keeps the connection to a worker."""
        connection.settimeout(_WAIT_SECONDS)
        name = self._exchange(connection).removeprefix(self._prefix)
        if name in self._others and _receive(connection, len(_MET)) == _MET:
            connection.setblocking(False)
            self._accepted[name] = connection
        else:
            connection.close()

    def _exchange(self, connection: socket.socket) -> str:
        """Sends this worker's greeting, and returns the other side's."""
        _keep_alive(connection)
        with contextlib.suppress(OSError):
            connection.sendall(f"{self._prefix}{self._name}\n".encode())
        return _receive(connection, 256).decode(errors="replace").rstrip("\n")


def _missing(found: str) -> str:
    return f"is missing, {found} answered there"


def _in_thread(target: Callable[[_T], None], argument: _T) -> None:
    threading.Thread(target=target, args=(argument,), daemon=True).start()


def _listen(address: str) -> socket.socket:
    _, port = split_address(address)
    both = socket.has_dualstack_ipv6()
    try:
        # Like TensorFlow's server: at all addresses of the machine, IPv4 and IPv6, and
        # with SO_REUSEADDR, so that a connection that has ended does not block a port.
        return socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            dualstack_ipv6=both,
            backlog=128,
        )
    except OSError as error:
        raise UsageError(
            f"port {port} of {address} cannot be opened ({error.strerror}): end the "
            "process that has it, an earlier worker perhaps, or choose another port"
        ) from error


def _keep_alive(connection: socket.socket) -> None:
    """Lets the system notice within ten seconds that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 5),
    ):
        if hasattr(socket, option):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _receive(connection: socket.socket, size: int) -> bytes:
    """Reads `size` bytes, or to the end of a line, or what comes in _WAIT_SECONDS."""
    received, deadline = b"", time.monotonic() + _WAIT_SECONDS
    with contextlib.suppress(OSError):
        while len(received) < size and not received.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte or time.monotonic() > deadline:
                break
            received += byte
    return received
