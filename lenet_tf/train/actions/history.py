"""Writes history.csv, one row an epoch.

trainer.fit(batches, epochs=3, actions=[at(every_epoch(), HistoryFile(path))])
"""

from __future__ import annotations

import pathlib

from lenet_tf.files import make_folder, write_csv
from lenet_tf.train.actions import Moment


class HistoryFile:
    """Writes all rows of the run at each call.

    Args:
      path: The file to write; its folder is made if it is missing.

    The rows come from the checkpointed record, so a resumed run can neither lose one
    nor write one twice. They hold no times: the file of a resumed run is bit for bit
    that of an undisturbed one.
    """

    after_save = True

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path)

    def __call__(self, moment: Moment) -> None:
        """Writes the file anew, atomically."""
        make_folder(self.path.parent)
        write_csv(self.path, moment.state.record.rows)
