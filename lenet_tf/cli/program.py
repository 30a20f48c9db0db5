"""What the programs share: flags, errors of one line, exit status, log.

    with program.group("Data"):
        flags.DEFINE_string("dataset", "mnist", "TFDS name.")

    if __name__ == "__main__":
        program.run(main)

Exit status: 0, or what `main` returns; 1 for a `UsageError`; 2 for a wrong flag; 130
for Ctrl-C and 143 for SIGTERM. Any other exception is a bug and keeps its traceback.

Before training, both signals end the program at once; nothing is half-written then.
"""

from __future__ import annotations

import contextlib
import errno
import logging as python_logging
import os
import pathlib
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator

from absl import flags, logging

# While TensorFlow is imported the system's answer will do, which has no traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Keeps what C++ writes to stderr, and shows it only if the context fails.

    TensorFlow's start-up notices come before its log level is in force, so
    TF_CPP_MIN_LOG_LEVEL does not reach them.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
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


# TF_CPP_MIN_LOG_LEVEL=0 shows all there is to see.
# Of a lost worker TensorFlow tells at the level of errors, in half a page.
_worker = {"TF_CONFIG", "SLURM_STEP_NUM_TASKS"} & os.environ.keys()
_level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if _worker else "2")
_quiet = _level != "0"
with _held_back_stderr() if _quiet else contextlib.nullcontext():
    import tensorflow as tf

    tf.config.list_physical_devices()

import lenet_tf  # noqa: E402
from lenet_tf.errors import UsageError  # noqa: E402
from lenet_tf.signals import SIGNALS, StopRequested  # noqa: E402

_HELP = frozenset(f"{dash}{name}" for dash in ("-", "--") for name in ("help", "h"))
_groups: dict[str, list[str]] = {}


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Puts the flags that are defined in the context under a title of `--help`."""
    before = set(flags.FLAGS)
    yield
    # In the order of definition, which a set would lose.
    _groups[title] = [name for name in flags.FLAGS if name not in before]


def run(main: Callable[[], int | None], doc: str | None) -> None:
    """Parses the flags, calls `main`, and exits; `doc` goes before the help."""
    try:
        for signum in SIGNALS:
            signal.signal(signum, _interrupt)
        _parse(sys.argv, doc)
        _log_to_stderr()
        status = main()
        sys.stdout.flush()
    except flags.Error as error:
        status = _fail(error, 2)
    except UsageError as error:
        status = _fail(error, 1)
    except OSError as error:
        # Without a name of a file, it was the standard output.
        if error.filename or error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # The interpreter would try again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _fail(f"the standard output cannot be written: {error.strerror}", 1)
    except StopRequested as stop:
        print(stop, file=sys.stderr)
        status = stop.status
    except KeyboardInterrupt as interrupt:
        stopped = StopRequested(*interrupt.args or (signal.SIGINT,))
        print(stopped, file=sys.stderr)
        status = stopped.status
    sys.exit(status)


def _interrupt(signum: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def _parse(argv: list[str], doc: str | None) -> None:
    if _HELP & set(argv[1:]):
        print((doc or "").strip())
        print(_help_text())
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise flags.Error(" ".join(str(error).split())) from error
    if rest:
        raise flags.Error(
            f"{' '.join(rest)!r} is not a flag: flags are --name=value, see --help"
        )


def _help_text() -> str:
    """Lists the program's flags by group, each with its values and default."""
    if not _groups:
        return flags.FLAGS.main_module_help()
    lines = []
    for title, names in _groups.items():
        lines += ["", f"{title}:"]
        for name in names:
            flag = flags.FLAGS[name]
            usage = f"--[no]{name}" if flag.boolean else f"--{name}"
            lines.append(f"  {usage}")
            default = "" if flag.default is None else f" (default {flag.default})"
            lines.append(flags.text_wrap(flag.help + default, 80, indent="      "))
    return "\n".join(lines)


def _fail(error: Exception | str, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _log_to_stderr() -> None:
    logging.use_absl_handler()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(
        python_logging.Formatter("%(levelname).1s %(asctime)s %(message)s", "%H:%M:%S")
    )
    handler.addFilter(_is_for_the_user)
    tf.get_logger().setLevel(python_logging.WARNING)
    tf.get_logger().handlers.clear()  # absl's handler has it already


def _is_for_the_user(record: python_logging.LogRecord) -> bool:
    """TensorFlow and TFDS log notices and deprecations of their own through absl."""
    path = pathlib.Path(record.pathname)
    if pathlib.Path(lenet_tf.__file__).parent in path.parents:
        return True
    quiet = "tensorflow_datasets" in path.parts
    return record.levelno >= (python_logging.ERROR if quiet else python_logging.WARNING)
