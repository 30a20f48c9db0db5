"""Ends a run in order when SIGTERM or SIGINT asks for it.

    with StopSignals() as stop:
        trainer.fit(batches, epochs=3, saver=Saver(workdir), poll=stop.check)

A signal is noted, and `check` raises StopRequested at its next call, between two inner
loops. The run then saves a checkpoint. A second SIGINT ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
import types
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, types.FrameType | None], object] | int | None


class StopRequested(Exception):  # noqa: N818 - nothing went wrong
    """A request to end the run in order: by a signal, or by the user's own code.

        raise StopRequested()             # as from an action, when the loss is low

    Args:
      signum: The signal that asked for it, or None.

    Attributes:
      signum: The same.
      status: Exit status of a program that ends by it: 128 + signum, or 0.
    """

    def __init__(self, signum: int | None = None) -> None:
        self.signum = signum
        self.status = 0 if signum is None else 128 + signum
        by = "" if signum is None else f" by {signal.Signals(signum).name}"
        super().__init__(f"stopped{by}")


class StopSignals:
    """Notes SIGTERM and SIGINT while its context lasts.

    Attributes:
      received: The first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> StopSignals:
        # Python calls its own handlers only after the inner loop. The system writes
        # the signal into this pipe at once.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer)
        self._previous = {s: signal.signal(s, self._note) for s in SIGNALS}
        threading.Thread(target=_watch, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._writer)  # which ends the thread
        # Last, because a signal that now comes may raise in the previous handler.
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raises StopRequested if a signal has come."""
        if self.received is not None:
            raise StopRequested(self.received)

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        if self.received is None:
            self.received = signum


def end_at_once() -> None:
    """Lets SIGTERM and SIGINT end the process at once from here on.

    A program calls it when it has only to exit: a handler that raises would print a
    traceback while the interpreter shuts down.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


def _watch(reader: int) -> None:
    """Ends the process at the second signal, if that is SIGINT."""
    count = 0
    while received := os.read(reader, 1):
        count += received[0] in SIGNALS
        if count > 1 and received[0] == signal.SIGINT:
            os._exit(128 + signal.SIGINT)
    os.close(reader)
