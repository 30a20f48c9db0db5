"""Starts several workers of one run on this machine, and ends when they have ended.

    python -m lenet_tf launch_local --workers=2 -- train --epochs=3
    python -m lenet_tf launch_local --workers=2 -- my_script.py --epochs=3

After `--` comes `train` or a Python script, and its flags. Each worker
gets a TF_CONFIG with free ports of this machine and its share of the threads. The lines
that a worker writes come out with its name before them. SIGINT and SIGTERM are passed
on to all workers. When one fails, the others have --grace seconds to notice it, then
they are ended. The exit status is that of the first worker that failed, 128 + n if
signal n has killed it. Workers do not outlive this program, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, NoReturn

from lenet_tf.signals import SIGNALS, end_at_once

MAX_WORKERS = 256
_PROGRAMS = ("train",)  # of lenet_tf, that several workers run together
_PR_SET_PDEATHSIG = 1
_KILL_SECONDS = 5.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see --help", file=sys.stderr)
        sys.exit(2)


def _main(argv: Sequence[str]) -> int:
    parser = _Parser(
        prog="python -m lenet_tf launch_local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="number of workers; 2 if unset"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=15.0,
        help="seconds that the others have when a worker has failed; 15 if unset",
    )
    parser.add_argument(
        "command", nargs="+", help="train, or a Python script, and its flags"
    )
    options = parser.parse_args(argv)
    if not 1 <= options.workers <= MAX_WORKERS:
        parser.error(f"--workers is {options.workers}: it must be 1 to {MAX_WORKERS}")
    if not options.grace >= 0:
        parser.error(f"--grace is {options.grace}: it must be 0 or more")
    name = options.command[0]
    command = options.command
    if name in _PROGRAMS:
        command = ["-m", "lenet_tf", *command]
    elif not os.path.isfile(name):
        parser.error(
            f"there is no {name}: after -- name a script, or {' or '.join(_PROGRAMS)}"
        )
    return launch(command, options.workers, options.grace)


def launch(command: Sequence[str], count: int, grace: float) -> int:
    """Runs Python in several workers.

    Args:
      command: Arguments of Python: a script, or -m and a module, and flags.
      count: Number of workers.
      grace: Seconds that the others have when a worker has failed.

    Returns:
      Exit status: 0, or that of the first worker that failed.
    """
    received: list[int] = []
    for signum in SIGNALS:
        signal.signal(signum, lambda signum, frame: received.append(signum))
    workers: list[subprocess.Popen[str]] = []
    try:
        for environment, prepare in _places(count):
            workers.append(_start(command, environment, prepare))
    except OSError as error:  # as when there are not so many files or processes
        for worker in workers:
            worker.kill()
        print(
            f"error: --workers is {count}, but worker {len(workers)} cannot be started "
            f"({error.strerror}): ask for fewer",
            file=sys.stderr,
        )
        return 1
    readers = [
        threading.Thread(target=_prefix, args=(i, source, sink), daemon=True)
        for i, worker in enumerate(workers)
        for source, sink in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr))
    ]
    for reader in readers:
        reader.start()
    status = _wait(workers, grace, received)
    for reader in readers:
        reader.join(timeout=_KILL_SECONDS)
    return status


def _start(
    command: Sequence[str], environment: dict[str, str], prepare: Callable[[], None]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", *command],
        env=environment,
        preexec_fn=prepare,
        start_new_session=True,  # so that Ctrl-C comes from here only, and once
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _wait(
    workers: Sequence[subprocess.Popen[str]], grace: float, received: list[int]
) -> int:
    """Waits for all workers; passes signals on, ends the rest when one has failed."""
    status, failed = 0, 0.0
    while None in (codes := [worker.poll() for worker in workers]):
        while received:
            signum = received.pop(0)
            for worker in workers:
                worker.send_signal(signum)
        if not status:
            status, failed = next(filter(None, codes), 0), time.monotonic()
        late = time.monotonic() - failed - grace if status else -1.0
        if late >= 0:
            for worker in workers:
                worker.kill() if late > _KILL_SECONDS else worker.terminate()
        time.sleep(0.1)
    status = status or next(filter(None, codes), 0)
    return status if status >= 0 else 128 - status


def _places(count: int) -> list[tuple[dict[str, str], Callable[[], None]]]:
    """Returns each worker's environment, and what it does before it starts."""
    with contextlib.ExitStack() as held:  # all at once, or one port comes twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]}
    # Threads, not the cores themselves: a worker that was tied to one core was slower.
    threads = max(1, (os.cpu_count() or 1) // count)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        if libc is not None:  # The system kills the worker when this process ends.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    places: list[tuple[dict[str, str], Callable[[], None]]] = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        environment = os.environ | {
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
            # For the workers' own connections; a download may still need the proxy.
            "no_grpc_proxy": "127.0.0.1",
            "TF_NUM_INTRAOP_THREADS": str(threads),
        }
        places.append((environment, prepare))
    return places


def _prefix(index: int, source: IO[str], sink: IO[str]) -> None:
    """Copies lines, each with the worker's name before it."""
    for line in source:
        with contextlib.suppress(OSError):  # a closed pipe does not stop training
            sink.write(f"[worker {index}] {line.rstrip()}\n")
            sink.flush()


def main() -> None:
    """Runs the program, and exits."""
    end_at_once()
    status = _main(sys.argv[1:])
    end_at_once()
    sys.exit(status)
