"""Profiles some steps of a run with TensorFlow's profiler.

trainer.fit(batches, epochs=3, actions=[Profile("runs/mine/profile", 200, 300)])
"""

from __future__ import annotations

import contextlib
import pathlib

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.train.actions import Moment


class Profile:
    """Action that profiles the inner loops from one step to another.

    Inner loops are profiled as a whole: from the end of the first one that reaches step
    `start` to the end of the first one that reaches step `stop`. Each is a bar "inner
    loop" in the trace, which TensorBoard shows after `pip install xprof`.

    Args:
      folder: Folder to write the profile to, below `plugins/profile/`.
      start: Number of steps before the profile starts.
      stop: Number of steps at which it stops.

    Raises:
      UsageError: `start` is negative, or `stop` is not above it.
    """

    def __init__(self, folder: pathlib.Path | str, start: int, stop: int) -> None:
        if not 0 <= start < stop:
            raise UsageError(
                f"start is {start} and stop {stop}: give 0 or more, and more than that"
            )
        self.folder = pathlib.Path(folder)
        self._start, self._stop = start, stop
        self._running = self._done = False
        self._loop = contextlib.ExitStack()  # the inner loop that is going on

    def __call__(self, moment: Moment) -> None:
        """Starts or stops the profiler, if it is time for that."""
        if self._running and moment.step >= self._stop:
            self.close()
        elif not self._done and self._start <= moment.step < self._stop:
            tf.profiler.experimental.start(str(self.folder))
            self._running = self._done = True
        if self._running:
            self._loop.close()
            marker = tf.profiler.experimental.Trace(
                "inner loop", step_num=moment.step, _r=1
            )
            self._loop.enter_context(marker)

    def close(self) -> None:
        """Stops the profiler, also when a run ends before step `stop`."""
        self._loop.close()
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()
