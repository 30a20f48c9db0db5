"""What the programs share: flags, errors of one line, exit status, log.

    with program.group("Data"):
        flags.DEFINE_string("dataset", "mnist", "TFDS name.")

    if __name__ == "__main__":
        program.run(main, __doc__)

Exit status: 0, or what `main` returns; 2 for a flag that is unknown or has a wrong
value; 1 for any other `UsageError` or error of the file system; 130 for Ctrl-C and 143
for SIGTERM. Any other exception is a bug and keeps its traceback.

Before training, both signals end the program at once; nothing is half-written then.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator

from lenet_tf.cli import startup as startup  # first, since it imports TensorFlow

# isort: split

import tensorflow as tf
from absl import flags, logging

import lenet_tf
from lenet_tf.cli.colours import RED, LogLines, paint
from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import local_path
from lenet_tf.signals import SIGNALS, StopRequested

_HELP = frozenset(f"{dash}{name}" for dash in ("-", "--") for name in ("help", "h"))
# Of the flags that absl and TensorFlow define only these have an effect here.
_KEPT = {"flagfile", "verbosity"}
_FOREIGN = frozenset(flags.FLAGS) - _KEPT
_groups: dict[str, list[str]] = {}


class _PathParser(flags.ArgumentParser[pathlib.Path]):
    def parse(self, argument: str | pathlib.Path) -> pathlib.Path:
        try:
            return local_path(os.fspath(argument))
        except ValueError as error:
            raise ValueError(f"it must be {error}") from error


def define_path(
    name: str, default: str | None, help: str
) -> flags.FlagHolder[pathlib.Path]:
    """Defines a flag whose value is the path of a file or directory."""
    return flags.DEFINE(_PathParser(), name, default, help)


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Puts the flags that are defined in the context under a title of `--help`."""
    before = set(flags.FLAGS)
    yield
    # In the order of definition, which a set would lose.
    defined = [name for name in flags.FLAGS if name not in before]
    _groups.setdefault(title, []).extend(defined)


def run(
    main: Callable[[], int | None],
    doc: str | None,
    arguments: list[str] | None = None,
) -> None:
    """Parses the flags, calls `main`, and exits.

    Args:
      main: Does the program's work; returns the exit status, or None for 0.
      doc: Text that `--help` prints before the flags.
      arguments: List that gets what is not a flag, such as names of files. None if
        there may only be flags.
    """
    try:
        status = _run(main, doc, arguments)
        # At Python's end our handler would print a traceback.
        _leave_signals_to_the_system()
    except KeyboardInterrupt as second:  # while the run's own was being answered
        status = 128 + second.args[0]
    sys.exit(status)


def _run(
    main: Callable[[], int | None], doc: str | None, arguments: list[str] | None
) -> int | None:
    own = flags.FlagValues()
    try:
        for signum in SIGNALS:
            signal.signal(signum, _interrupt)
        for name in flags.FLAGS:
            flag = flags.FLAGS[name]
            if name == flag.name and name not in _FOREIGN:  # Not its short name.
                own[name] = flag
        if _HELP & set(sys.argv[1:]):
            print((doc or "").strip())
            print(_help_text(own))
            return 0
        rest = _parse(own, sys.argv)
        if arguments is not None:
            arguments[:] = rest
        elif rest:
            raise flags.Error(
                f"{' '.join(rest)!r} is not a flag: flags are --name=value, see --help"
            )
        _log_to_stderr()
        status = main()
        sys.stdout.flush()
        return status
    except flags.Error as error:
        return _fail(str(error), 2)
    except UsageError as error:
        return _fail(str(error), 2 if _blames_a_flag(str(error), own) else 1)
    except StopRequested as stop:
        return _stopped(stop)
    except KeyboardInterrupt as interrupt:
        signum = interrupt.args[0] if interrupt.args else signal.SIGINT
        return _stopped(StopRequested(signum))
    except OSError as error:
        if error.filename:
            return _fail(f"{error.filename}: {error.strerror}", 1)
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # Without the name of a file, it was the standard output. The interpreter would
        # try again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the standard output cannot be written: {error.strerror}", 1)


def _stopped(stop: StopRequested) -> int:
    # From here on objects are freed, in whose __del__ our handler would raise in vain.
    _leave_signals_to_the_system()
    print(stop, file=sys.stderr)
    return stop.status


def _interrupt(signum: int, frame: types.FrameType | None) -> None:
    _leave_signals_to_the_system()  # The next one ends the process at once.
    raise KeyboardInterrupt(signum)


def _leave_signals_to_the_system() -> None:
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


def _parse(own: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses the flags; returns what is not a flag."""
    try:
        rest: list[str] = own(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(own), n=1)
        hint = f"did you mean --{near[0]}?" if near else "see --help"
        raise flags.Error(f"there is no flag --{error.flagname}: {hint}") from error
    except UnicodeError:
        raise flags.Error("flagfile is not a text file: it must hold flags") from None
    except (flags.Error, ValueError) as error:
        raise flags.Error(" ".join(str(error).split())) from error
    flags.FLAGS.mark_as_parsed()  # The flags themselves are the same objects.
    return rest


def _blames_a_flag(message: str, own: flags.FlagValues) -> bool:
    """Whether an error is about the value of a flag that was given.

    Errors of the library begin with the name and the value, as in "epochs is -1: ...".
    """
    named = re.findall(r"\b(\w+) is ", message)
    return any(name in own and own[name].present for name in named)


def _help_text(own: flags.FlagValues) -> str:
    """Lists the program's flags by group, each with its values and default."""
    grouped = {name for names in _groups.values() for name in names}
    others = [n for n in own if n not in grouped | _KEPT and n == own[n].name]
    lines = []
    for title, names in {**_groups, "Flags": others}.items():
        if not names:
            continue
        lines += ["", f"{title}:"]
        for name in names:
            flag = own[name]
            usage = f"--[no]{name}" if flag.boolean else f"--{name}"
            lines.append(f"  {usage}")
            default = "none" if flag.default is None else flag.default
            text = f"{flag.help} (default {default})"
            lines.append(flags.text_wrap(text, 80, indent="      "))
    return "\n".join(lines)


def _fail(message: str, status: int) -> int:
    print(paint("error:", RED, sys.stderr), message, file=sys.stderr)
    return status


def _log_to_stderr() -> None:
    logging.use_absl_handler()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(LogLines())
    handler.addFilter(_is_for_the_user)
    tf.get_logger().setLevel(python_logging.WARNING)
    tf.get_logger().handlers.clear()  # absl's handler has it already


def _is_for_the_user(record: python_logging.LogRecord) -> bool:
    """Whether a log line is ours, or a warning, or an error of TFDS."""
    path = pathlib.Path(record.pathname)
    if pathlib.Path(lenet_tf.__file__).parent in path.parents:
        return True
    quiet = "tensorflow_datasets" in path.parts
    return record.levelno >= (python_logging.ERROR if quiet else python_logging.WARNING)
