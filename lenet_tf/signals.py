"""Lets a run end in order when it is told to.

    with StopSignals() as stop:
        trainer.fit(batches, epochs=3, saver=Saver(workdir), poll=stop.check)

SIGTERM and SIGINT are noted, and `check` raises at the next look, between two inner
loops; then the run saves a checkpoint. A second SIGINT stops at once.
"""

from __future__ import annotations

import os
import signal
import threading
import types
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818 - nothing went wrong
    """A run was told to end.

    Attributes:
      signum: by which signal.
      status: the exit status that tells so, 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        self.signum, self.status = signum, 128 + signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class StopSignals:
    """Notes SIGTERM and SIGINT while its context lasts."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python's own handlers wait for the end of an inner loop; the system's, which
        # writes into this pipe, does not.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
        threading.Thread(target=self._watch, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # which ends the watch

    def check(self) -> None:
        """Raises StopRequested if a signal has come."""
        if self.received is not None:
            raise StopRequested(self.received)

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        if self.received is None:
            self.received = signum

    @staticmethod
    def _watch(reader: int) -> None:
        came = 0
        while signum := os.read(reader, 1):
            came += signum[0] in SIGNALS
            if came > 1 and signum[0] == signal.SIGINT:
                os._exit(128 + signal.SIGINT)
        os.close(reader)
