"""Imports TensorFlow for a program without the notices of its start.

    from lenet_tf.cli import startup      # before anything else imports TensorFlow

What ends the process at the import, such as a wrong TF_XLA_FLAGS, is still shown. All
notices are shown with TF_CPP_MIN_LOG_LEVEL=0.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator

_FATAL = re.compile(rb"^F\d{4} .*", re.MULTILINE | re.DOTALL)

# Until the program has its own handlers the system's will do: it has no traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)


def open_standard_streams() -> None:
    """Opens /dev/null in place of standard streams that are closed, as by `2>&-`.

    Otherwise the next file that is opened would get their number, and what C++ code
    prints would go into that file.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number, which is fd.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


@contextlib.contextmanager
def hold_back_stderr() -> Iterator[None]:
    """Keeps what C++ writes to stderr, and shows it if the context fails.

    TensorFlow's first notices come before its log level is in force, so
    TF_CPP_MIN_LOG_LEVEL does not reach them.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        reader, writer = os.pipe()
        watcher = os.fork()
        if not watcher:
            # TensorFlow may end the process. Only another one can still show why.
            os.close(writer)
            if not os.read(reader, 1):
                fatal = _FATAL.search(os.pread(kept.fileno(), 2**20, 0))
                os.write(stderr, fatal[0] if fatal else b"")
            os._exit(0)
        os.close(reader)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.write(writer, b"\n")
            os.close(writer)
            os.waitpid(watcher, 0)


open_standard_streams()
# When a worker is lost TensorFlow fills half a page at the level of errors.
_worker = {"TF_CONFIG", "SLURM_STEP_NUM_TASKS"} & os.environ.keys()
_level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if _worker else "2")
with hold_back_stderr() if _level != "0" else contextlib.nullcontext():
    import tensorflow as tf

    tf.config.list_physical_devices()
