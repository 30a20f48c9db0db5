"""The open connections of a worker to all others, and what they tell.

links.enter()                         # from here on a lost worker matters
links.lost()                          # names of the workers that were lost
links.leave()                         # tells the others that this one may end
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
    """Connects this worker to all others; two connections between any two.

    A worker that ends without having left as often as this one has entered was lost.

    Args:
      addresses: Name -> address of every other worker.
      opened: Name -> non-blocking connection that this worker opened. It closes when
        the other process ends.
      accepted: Name -> non-blocking connection that the other worker opened. It closes
        when this process ends.
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
        """Begins a time in which the workers need each other."""
        self._entered += 1

    def leave(self) -> None:
        """Ends it, and tells the others."""
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
