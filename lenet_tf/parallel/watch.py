"""Ends this process when another worker of the run is lost.

    with Watch(links):
        ...                               # what may wait for another worker

TensorFlow may wait forever for a worker that has ended. The watch is a thread that
looks at the connections of `links`, so it works while the main thread waits.
"""

from __future__ import annotations

import os
import sys
import threading

from lenet_tf.parallel.links import Links

# Time that a worker has to end with an error of its own after another was lost.
LOST_SECONDS = 10.0
_INTERVAL = 0.5


class Watch:
    """Ends this process, with one line and status 1, when another worker is lost.

        with Watch(links) as watch:
            ...                           # what may wait for another worker
            watch.stop()                  # from here on each worker may end

    After an error has left the context, the main thread may finish what it does. The
    watch then ends the process only if TensorFlow waits for a lost worker at exit.

    Args:
      links: Connections to all other workers.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._stopped = threading.Event()
        self._noticed = threading.Event()
        self._failed = False
        self._lost_line = ""

    def __enter__(self) -> Watch:
        self._links.enter()
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.stop()
        self._failed = True

    def stop(self) -> None:
        """Ends the watch, and tells the other workers that this one may end."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._links.leave()

    def wait_for_loss(self) -> str | None:
        """Returns a line that names a lost worker, or None if none was lost.

        It waits up to LOST_SECONDS, since TensorFlow may be the first to notice.
        """
        return self._lost_line if self._noticed.wait(LOST_SECONDS) else None

    def _run(self) -> None:
        while not (lost := self._links.lost()):
            if self._stopped.wait(_INTERVAL):
                return
        self._lost_line = (
            f"{lost[0]} at {self._links.addresses[lost[0]]} was lost: start all "
            "workers again with the same command, and the run goes on from its last "
            "checkpoint"
        )
        self._noticed.set()
        # The main thread may end by itself, with an error that says more.
        self._stopped.wait(LOST_SECONDS)
        while not self._stopped.wait(_INTERVAL):
            if not self._failed:
                print(f"error: {self._lost_line}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread is in TensorFlow, and stays there
            if not threading.main_thread().is_alive():
                os._exit(1)
