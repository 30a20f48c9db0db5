"""Ends a run cleanly on SIGTERM or SIGINT.

    with StopSignals() as stop:
        trainer.fit(batches, epochs=3, saver=Saver(workdir), poll=stop.check)

A signal is only recorded. `check`, called between two inner loops, then raises
StopRequested, and the run saves a checkpoint. A SIGINT after a first signal ends the
process at once.

Without a StopSignals, `fit` handles Ctrl-C and the stop button of a notebook alike; see
`interrupt_deferred`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, types.FrameType | None], object] | int | None


class StopRequested(Exception):  # noqa: N818 - nothing went wrong
    """A request to end the run cleanly, by a signal or by the user's own code.

        raise StopRequested()             # in an action, say, when the loss is low

    Args:
      signum: Number of the signal, or None without one.

    Attributes:
      signum: Number of the signal, or None without one.
      status: Exit status for the program: 128 + signum, or 0 without a signal.
    """

    def __init__(self, signum: int | None = None) -> None:
        self.signum = signum
        self.status = 0 if signum is None else 128 + signum
        by = "" if signum is None else f" by {signal.Signals(signum).name}"
        super().__init__(f"stopped{by}")


class StopSignals:
    """Context manager that records SIGTERM and SIGINT instead of acting on them.

    `Trainer.fit` looks at it between inner loops, if it is not given another `poll`.

    Attributes:
      received: Number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> StopSignals:
        # Python runs `_note` only when TensorFlow returns, after the inner loop. The
        # number of the signal is written to this pipe at once, and `_watch` reads it.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer)
        _open.append(self)
        self._previous = {s: signal.signal(s, self._note) for s in SIGNALS}
        threading.Thread(target=_watch, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        _open.remove(self)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._writer)  # which ends the thread
        # Last, because the previous handler may raise at a signal that comes now.
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raises StopRequested if a signal has come."""
        if self.received is not None:
            raise StopRequested(self.received)

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        if self.received is None:
            self.received = signum


_open: list[StopSignals] = []


def check_signals() -> None:
    """Raises StopRequested if a signal has come to a StopSignals that is in use."""
    for signals in _open:
        signals.check()


class _Interrupted(StopRequested):
    """Request to stop after a SIGINT in `interrupt_deferred`."""


@contextlib.contextmanager
def interrupt_deferred(poll: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Context in which the first SIGINT, as from Ctrl-C, only asks the run to stop.

    Python would raise KeyboardInterrupt anywhere, such as between an epoch's last step
    and its row. Here the first SIGINT is recorded, and a second one raises
    KeyboardInterrupt at once. If the program has a SIGINT handler of its own, such as
    that of StopSignals, or this is not the main thread, nothing changes.

    Args:
      poll: Function that raises an exception when the run should stop.

    Yields:
      Function to call in place of `poll`, where the run can stop. It calls `poll`, and
      after a SIGINT raises StopRequested.

    Raises:
      KeyboardInterrupt: A SIGINT came, and this is no notebook. In a notebook the
        reason is printed, and the program goes on after the context.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield poll
        return
    came = False

    def note(signum: int, frame: types.FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    def check() -> None:
        poll()
        if came:
            raise _Interrupted(signal.SIGINT)

    reason = ""
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    except _Interrupted as stop:
        reason = str(stop)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came and not in_notebook():  # also if it came after the last check
        raise KeyboardInterrupt(*filter(None, [reason])) from None
    if reason:
        print(reason)


def in_notebook() -> bool:
    """Whether this program runs in a Jupyter kernel, as the cells of a notebook do."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def end_at_once() -> None:
    """Lets SIGTERM and SIGINT end the process at once from here on.

    For a program that only has to exit: a handler that raises would print a traceback
    while the interpreter shuts down.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


def _watch(reader: int) -> None:
    """Ends the process at a SIGINT that is not the first signal."""
    count = 0
    while received := os.read(reader, 1):
        count += received[0] in SIGNALS
        if count > 1 and received[0] == signal.SIGINT:
            os._exit(128 + signal.SIGINT)
    os.close(reader)
