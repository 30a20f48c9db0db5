"""Runs the programs in processes of their own, without importing TensorFlow each time.

A server imports TensorFlow once and forks for each program: real processes, with real
signals and exit status, that start in a moment. TensorFlow itself starts after the
fork, so each process sets its own devices.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pathlib
import resource
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS, BENCHMARKS = ROOT / "scripts", ROOT / "benchmarks"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["tensorflow", "tensorflow_datasets", "lenet_tf.experiment"]
)


@dataclasses.dataclass
class Finished:
    """How a program ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr but for those that only inform."""
        lines = self.stderr.splitlines()
        return [line for line in lines if not line.startswith("I ")]


class Program:
    """A script of `scripts/` that runs in a process of its own.

    Args:
      script: its name, such as "train.py", or an absolute path.
      flags: its arguments.
      environment: variables to set for it.
      file_size: the most bytes it may write to a file; beyond, writing fails as it does
        on a full disk.
    """

    def __init__(
        self,
        script: str,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        file_size: int | None = None,
    ) -> None:
        self._output = tempfile.TemporaryDirectory()
        self._process = _context.Process(
            target=_run,
            args=(
                str(SCRIPTS / script),
                list(flags),
                dict(environment or {}),
                self._output.name,
                file_size,
            ),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def said(self, stream: str = "stderr") -> str:
        """What it has written so far."""
        path = pathlib.Path(self._output.name, stream)
        return path.read_text() if path.exists() else ""

    def send(self, signum: int) -> None:
        """Sends it a signal, when it has begun."""
        self.until(pathlib.Path(self._output.name, "stderr").exists)
        os.kill(self.pid, signum)

    def until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        """Waits for a condition; fails when the program ends before it holds."""
        end = time.monotonic() + timeout
        while not condition():
            alive = self.alive() and time.monotonic() < end
            assert alive or condition(), f"it never came to that: {self.said()}"
            time.sleep(0.002)

    def wait(self, timeout: float = 120) -> Finished:
        """Waits for its end; kills it and fails when that does not come."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"still running after {timeout} s: {self.said()}")
        finished = Finished(
            self._process.exitcode, self.said("stdout"), self.said("stderr")
        )
        self._output.cleanup()
        return finished


def run(script: str, *flags: str, **options: Any) -> Finished:
    """Runs a program to its end."""
    return Program(script, *flags, **options).wait()


def _run(
    script: str,
    flags: Sequence[str],
    environment: Mapping[str, str],
    output: str,
    file_size: int | None,
) -> None:
    # So early the interpreter would write a traceback of its own start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, fd)
        os.close(file)
    os.environ.update(environment)
    sys.argv = [script, *flags]
    sys.path[:0] = [os.path.dirname(script)]
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    runpy.run_path(script, run_name="__main__")
