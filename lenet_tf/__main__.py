"""The programs by name: `python -m lenet_tf train --epochs=3`."""

from __future__ import annotations

import difflib
import importlib
import sys

PROGRAMS = {
    "train": "trains LeNet-5, or goes on with a run",
    "evaluate": "evaluates the test split with the weights of a run",
    "report": "writes the page about a run, or one that compares runs",
    "export": "writes the network of a run as a SavedModel",
    "predict": "tells the digits in pictures",
    "demo": "serves a page to draw digits, with the network's answer live",
    "sweep": "trains over a grid of settings and several seeds",
    "prepare_data": "prepares a dataset where TFDS keeps it",
    "launch_local": "starts several workers of one run on this machine",
}
_USAGE = "\n".join(
    [
        "python -m lenet_tf PROGRAM --flag=value ...; PROGRAM --help lists its flags:",
        *(f"  {name:<13} {what}" for name, what in PROGRAMS.items()),
    ]
)


def main() -> None:
    """Runs the program that the first argument names, and exits."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        print(_USAGE)
        return
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, n=1) or list(PROGRAMS)
        print(
            f"error: there is no program {name!r}: try {' or '.join(near)}",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv[:2] = [f"python -m lenet_tf {name}"]
    importlib.import_module(f"lenet_tf.cli.{name}").main()


if __name__ == "__main__":
    main()
