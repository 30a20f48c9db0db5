"""Writes history.csv, the rows of the history.

trainer.fit(batches, epochs=3, actions=[at(every_row(), HistoryFile(path))])
"""

from __future__ import annotations

import pathlib

from lenet_tf.files import make_folder, write_csv
from lenet_tf.train.actions import Moment


class HistoryFile:
    """Writes all rows of the run at each call.

    The rows come from the record in the checkpoint, so a resumed run neither loses nor
    repeats a row. Rows hold no times, so the file of a resumed run has the same bytes
    as that of an uninterrupted one.

    Args:
      path: Path of the file; its folder is made if it is missing.
    """

    after_save = True

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path)

    def __call__(self, moment: Moment) -> None:
        """Replaces the file atomically."""
        make_folder(self.path.parent)
        write_csv(self.path, moment.state.record.rows)
