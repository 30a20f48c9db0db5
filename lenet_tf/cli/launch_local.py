"""Starts several workers of one run on this machine, and ends with them.

    python -m lenet_tf launch_local --workers=2 -- scripts/train.py --epochs=3

Each worker gets a TF_CONFIG with free ports of this machine and its share of threads.
What they write comes out with their names before it. SIGINT and SIGTERM are passed on
to all of them. When one fails the others have --grace seconds to find out, then they
are ended. The exit status is that of the first worker that failed, 128 + n for one that
signal n has killed. Workers do not outlive this program, however it ends.
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

_PR_SET_PDEATHSIG = 1
_KILL_SECONDS = 5.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see --help", file=sys.stderr)
        sys.exit(2)


def _main(argv: Sequence[str]) -> int:
    parser = _Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="how many; 2 if unset")
    parser.add_argument(
        "--grace",
        type=float,
        default=15.0,
        help="seconds that the others have when a worker has failed; 15 if unset",
    )
    parser.add_argument("command", nargs="+", help="a Python script and its flags")
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}: it must be at least 1")
    if not options.grace >= 0:
        parser.error(f"--grace is {options.grace}: it must be 0 or more")
    if not os.path.isfile(options.command[0]):
        parser.error(f"there is no {options.command[0]}: name a script after --")
    return launch(options.command, options.workers, options.grace)


def launch(command: Sequence[str], count: int, grace: float) -> int:
    """Runs a script in so many workers, and returns the exit status of it all."""
    received: list[int] = []
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, frame: received.append(signum))
    workers = [
        subprocess.Popen(
            [sys.executable, "-u", *command],
            env=environment,
            preexec_fn=prepare,
            start_new_session=True,  # Ctrl-C comes from here, and once
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for environment, prepare in _places(count)
    ]
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


def _wait(
    workers: Sequence[subprocess.Popen[str]], grace: float, received: list[int]
) -> int:
    """Waits for all workers; passes signals on, ends the rest when one has failed."""
    status, failed = 0, 0.0
    while any([worker.poll() is None for worker in workers]):
        while received:
            signum = received.pop(0)
            for worker in workers:
                worker.send_signal(signum)
        if not status:
            codes = [worker.returncode for worker in workers if worker.returncode]
            status, failed = (codes[0] if codes else 0), time.monotonic()
        late = time.monotonic() - failed - grace if status else -1.0
        if late >= 0:
            for worker in workers:
                worker.kill() if late > _KILL_SECONDS else worker.terminate()
        time.sleep(0.1)
    status = status or next((w.returncode for w in workers if w.returncode), 0)
    return status if status >= 0 else 128 - status


def _places(count: int) -> list[tuple[dict[str, str], Callable[[], None]]]:
    """Returns each worker's environment, and what it does before it starts."""
    with contextlib.ExitStack() as held:  # all at once, or one port comes twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]}
    # Threads, not the cores themselves: tied to one core a worker was slower.
    threads = max(1, (os.cpu_count() or 1) // count)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()
    places: list[tuple[dict[str, str], Callable[[], None]]] = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        environment = os.environ | {
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
            # For the workers' own connections; a download may still need the proxy.
            "no_grpc_proxy": "127.0.0.1",
            "TF_NUM_INTRAOP_THREADS": str(threads),
        }

        def prepare() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        places.append((environment, prepare))
    return places


def _prefix(index: int, source: IO[str], sink: IO[str]) -> None:
    for line in source:
        with contextlib.suppress(OSError):  # a closed pipe stops no training
            sink.write(f"[worker {index}] {line.rstrip()}\n")
            sink.flush()


def main() -> None:
    """Runs the program, and exits."""
    sys.exit(_main(sys.argv[1:]))
