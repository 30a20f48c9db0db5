"""Reads the files that are written for TensorBoard."""

from __future__ import annotations

import collections
import pathlib
from typing import Any

import tensorflow as tf


def events(folder: pathlib.Path) -> dict[str, list[tuple[int, Any]]]:
    """Tag -> (step, value) of all events in a folder's own files."""
    found = collections.defaultdict(list)
    for path in sorted(folder.glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                number = tf.make_ndarray(value.tensor)
                # An array does not compare as a whole; a single number does.
                plain = number.tolist() if number.ndim else number.item()
                found[value.tag].append((event.step, plain))
    return dict(found)


def hyperparameters(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The hyperparameters in a folder's own files, by name, of each time written."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = []
    for path in sorted(folder.glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            for value in tf.compat.v1.Event.FromString(record).summary.value:
                if value.tag == "_hparams_/session_start_info":
                    content = value.metadata.plugin_data.content
                    data = plugin_data_pb2.HParamsPluginData.FromString(content)
                    pairs = data.session_start_info.hparams.items()
                    found.append(
                        {k: getattr(v, v.WhichOneof("kind")) for k, v in pairs}
                    )
    return found
