"""Connections between a worker and all others, which show when a worker is lost.

    links.enter()                         # from here on the workers need each other
    links.lost()                          # names of the workers that were lost
    links.leave()                         # tells the others that this one may end

`meeting` opens the connections, and `watch` looks at them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Mapping

import tensorflow as tf

_LEFT = b"-"


class Links:
    """Two connections to each other worker, one opened by either side.

    A worker is lost if its process ends before it has called `leave` as often as this
    worker has called `enter`.

    Args:
      addresses: Addresses of all other workers, by name.
      opened: Non-blocking connections that this worker opened, by the other's name.
        What the others send is read from them; they close when the other process ends.
      accepted: Non-blocking connections that the others opened, by name. What this
        worker sends is written to them.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        opened: Mapping[str, socket.socket],
        accepted: Mapping[str, socket.socket],
    ) -> None:
        self.addresses = addresses
        self._opened, self._accepted = opened, accepted
        self._entered = 0
        self._left = dict.fromkeys(addresses, 0)
        self._closed: set[str] = set()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Begins a period in which the workers need each other."""
        self._entered += 1

    def leave(self) -> None:
        """Ends the period, and tells the other workers."""
        for connection in self._accepted.values():
            with contextlib.suppress(OSError):
                connection.sendall(_LEFT)

    def lost(self) -> list[str]:
        """Returns the names of the workers that were lost, without waiting."""
        with self._lock:
            for name, connection in self._opened.items():
                if name not in self._closed:
                    self._read(name, connection)
            return [n for n in self._closed if self._left[n] < self._entered]

    def _read(self, name: str, connection: socket.socket) -> None:
        try:
            while received := connection.recv(256):
                self._left[name] += received.count(_LEFT)
            self._closed.add(name)
        except BlockingIOError:
            return
        except OSError:
            self._closed.add(name)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side of a non-blocking connection has closed it."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


# The links of each strategy that `make_strategy` has made.
links_of: weakref.WeakKeyDictionary[tf.distribute.Strategy, Links] = (
    weakref.WeakKeyDictionary()
)
