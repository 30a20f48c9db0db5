"""Errors that show the fix.

A `UsageError` is one line: the value that was wrong and what would be right.
Programs print it and exit with status 1; everything else that is raised is a bug and
keeps its traceback.

    raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
"""

from __future__ import annotations


class UsageError(ValueError):
    """An error that the user can fix: a wrong value, a missing file, a busy folder."""


class DataError(UsageError):
    """A dataset cannot be obtained, or is not what it should be."""


class NonFiniteError(UsageError):
    """A loss or a gradient became NaN or infinite."""


class CheckpointError(UsageError):
    """A checkpoint cannot be written, found, read or matched to the program."""
