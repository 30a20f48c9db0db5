"""Behaviour of lenet_tf.signals, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from lenet_tf.signals import StopRequested, StopSignals


def started(program: str) -> subprocess.Popen[str]:
    """Starts a program, and waits until it has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [
        ((), "stopped", 0),
        ((signal.SIGTERM,), "stopped by SIGTERM", 143),
        ((2,), "stopped by SIGINT", 130),
    ],
)
def test_a_stop_has_a_line_and_a_status(
    arguments: tuple[int, ...], text: str, status: int
) -> None:
    stop = StopRequested(*arguments)
    assert (str(stop), stop.status) == (text, status)
    assert stop.signum == (arguments[0] if arguments else None)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_raised_by_the_next_check(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with StopSignals() as stop:
        stop.check()
        signal.raise_signal(signum)
        with pytest.raises(StopRequested, match=f"stopped by {signum.name}"):
            stop.check()
    assert signal.getsignal(signum) == before


def test_a_second_sigint_ends_a_process_that_does_not_check() -> None:
    process = started(
        """
        import time
        from lenet_tf.signals import StopSignals
        with StopSignals() as stop:
            print("ready")
            while stop.received is None:
                time.sleep(0.01)
            print("noted")
            time.sleep(60)
        """
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "noted\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.communicate() == ("", "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_interpreter_shuts_down_prints_no_traceback(
    signum: signal.Signals,
) -> None:
    process = started(
        """
        import atexit, signal, time
        from lenet_tf.signals import SIGNALS, end_at_once
        def interrupt(signum, frame):
            raise KeyboardInterrupt(signum)
        for signum in SIGNALS:
            signal.signal(signum, interrupt)
        end_at_once()
        atexit.register(lambda: (print("ready"), time.sleep(60)))
        """
    )
    process.send_signal(signum)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signum
