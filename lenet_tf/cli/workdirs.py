"""The directories of runs that a program is given: by --workdir, and after it.

report --workdir runs/a runs/b      report runs/a runs/b      report
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import local_path


def chosen(
    workdir: flags.FlagHolder[pathlib.Path], arguments: Sequence[str]
) -> list[pathlib.Path]:
    """Returns the directories, each once.

    Args:
      workdir: The flag, whose default counts only if nothing else is given.
      arguments: What is given besides flags.

    Raises:
      UsageError: An argument is not the path of a directory of this machine.
    """
    first = [workdir.value] if workdir.present or not arguments else []
    return [*dict.fromkeys([*first, *map(_path, arguments)])]


def _path(argument: str) -> pathlib.Path:
    try:
        return local_path(argument)
    except ValueError as error:
        raise UsageError(f"{argument!r} holds no run: it must be {error}") from error
