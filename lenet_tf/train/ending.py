"""How a run ends: done, ended by an action, stopped by a signal, or failed.

with saved_at_the_end(outer, saver, actions):
    outer.run()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from absl import logging

from lenet_tf.errors import NonFiniteError
from lenet_tf.signals import StopRequested, in_notebook
from lenet_tf.train.actions import Action, Enough, close
from lenet_tf.train.outer_loop import OuterLoop
from lenet_tf.train.saver import Saver


@contextlib.contextmanager
def saved_at_the_end(
    outer: OuterLoop, saver: Saver | None, actions: Sequence[Action]
) -> Iterator[None]:
    """Context that saves a run and closes its actions, however it ends.

    Args:
      outer: Outer loop that runs in the context.
      saver: Saver of the run, or None.
      actions: Actions to close.

    Raises:
      StopRequested: The run was stopped and is saved; the message says where.
      NonFiniteError: A loss or gradient was not finite; the message names the last
        checkpoint, and nothing is saved.
    """
    try:
        yield
    except Enough as enough:
        logging.info("the run ends here: %s", enough)
        if saver is not None:
            saver.save(outer.step, outer.row_is_due())
    except StopRequested as stop:
        if saver is None:
            stop.args = (f"{stop} at step {outer.step}",)
        else:
            path = saver.save(outer.step, outer.row_is_due())
            again = "cell" if in_notebook() else "command"
            stop.args = (f"{stop}; saved {path}: the same {again} again goes on",)
        raise
    except NonFiniteError as error:
        if saver is not None:
            saver.finish()
            raise NonFiniteError(
                f"{error}; the last good checkpoint: {saver.newest()}"
            ) from error
        raise
    finally:
        close(actions)
    if saver is not None:
        saver.finish()
