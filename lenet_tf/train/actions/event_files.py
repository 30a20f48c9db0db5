"""Event files of TensorBoard, of which a resumed run must not double a point.

cut_events(folder, after=700)         # what a killed run wrote after step 700 is gone
"""

from __future__ import annotations

import pathlib

import tensorflow as tf

from lenet_tf.files import replacing


def cut_events(folder: pathlib.Path, after: int) -> None:
    """Removes the events of later steps from the event files in a folder.

    A file that a kill has cut off is mended: its last, incomplete event is removed. A
    file of which nothing is left is removed.

    Args:
      folder: Folder of event files; it may be missing. Its subfolders stay as they are.
      after: Number of the last step whose events stay; -1 for none.
    """
    for path in sorted(folder.glob("*.tfevents.*")):
        events: list[bytes] = []
        whole = True
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                events.append(record)
        except tf.errors.DataLossError:
            whole = False
        kept = [e for e in events if tf.compat.v1.Event.FromString(e).step <= after]
        if whole and len(kept) == len(events):
            continue
        if not kept:
            path.unlink()
            continue
        with replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as file:
            for event in kept:
                file.write(event)
