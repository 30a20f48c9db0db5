"""Colours of what the programs print, on a terminal only.

    print(paint("error:", RED, sys.stderr), message, file=sys.stderr)

The variable NO_COLOR (no-color.org) switches them off, and so does TERM=dumb.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

RED, YELLOW, BOLD, DIM = "31;1", "33", "1", "2"
_START = len("I 16:38:48")


def paint(text: str, style: str, stream: TextIO) -> str:
    """Returns text in a colour, or as it is where the stream is to have none."""
    return f"\033[{style}m{text}\033[0m" if _colourful(stream) else text


class LogLines(logging.Formatter):
    """Lines of the log, such as "I 16:38:48 epoch 1/40": warnings stand out."""

    def __init__(self) -> None:
        super().__init__("%(levelname).1s %(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as a line."""
        line = super().format(record)
        if record.levelno >= logging.WARNING:
            style = RED if record.levelno >= logging.ERROR else YELLOW
            return paint(line, style, sys.stderr)
        start, rest = line[:_START], line[_START:]
        return paint(start, DIM, sys.stderr) + rest


def _colourful(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # it is absent or closed
        return False
