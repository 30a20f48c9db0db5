"""Lets a run end in order when it is told to.

    with StopSignals() as stop:
        trainer.fit(batches, epochs=3, workdir=workdir, poll=stop.check)

SIGTERM and SIGINT are noted, and `check` raises at the next look, between two inner
loops; then the run saves a checkpoint. A second SIGINT stops at once.
"""

from __future__ import annotations

import signal
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
        self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raises StopRequested if a signal has come."""
        if self.received is not None:
            raise StopRequested(self.received)

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        self.received = signum
        # From here on the system's own answer, which waits for no inner loop.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
