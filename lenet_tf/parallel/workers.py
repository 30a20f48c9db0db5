"""What the workers of one run do together, and what only the chief does.

    with together(strategy, stop.check) as poll:
        check_alike(strategy, "seed", config.seed)
        trainer.fit(batches, epochs=3, saver=Saver(workdir), poll=poll)
    if is_chief(strategy):
        ...                               # writes

Without MultiWorkerMirroredStrategy there is one worker, the chief, and all of it costs
nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster, reachability
from lenet_tf.signals import SIGNALS, StopRequested

# What collectives raise when another worker, or the connection to it, is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes and tells."""
    return not _several(strategy) or cluster.is_chief(strategy.cluster_resolver)


@contextlib.contextmanager
def together(
    strategy: tf.distribute.Strategy, poll: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Lets the workers stop together, and none wait for one that is lost.

    Args:
      strategy: of the run.
      poll: raises StopRequested when this process is told to stop.

    Yields:
      What to call instead of `poll`, by all workers at the same steps: it raises
      StopRequested in all of them when one is told to stop.

    Raises:
      UsageError: a worker was lost. When TensorFlow does not notice that, the process
        ends with that line on stderr and status 1.
    """
    if not _several(strategy):
        yield poll
        return
    with reachability.Watch(strategy.cluster_resolver) as watch:

        def poll_all() -> None:
            received = None
            try:
                poll()
            except StopRequested as stop:
                received = stop.signum
            told = _sum(strategy, *(signum == received for signum in SIGNALS))
            for signum, workers in zip(SIGNALS, told, strict=True):
                if workers:
                    watch.stop()  # the chief has yet to save, the others have done
                    raise StopRequested(signum)

        try:
            yield poll_all
        except _LOST as error:
            raise UsageError(reachability.lost_line()) from error


def check_alike(strategy: tf.distribute.Strategy, name: str, value: float) -> None:
    """Checks that a number is the same in all workers.

    Raises:
      UsageError: this worker's is not what it is on average.
    """
    if not _several(strategy):
        return
    total, replicas = _sum(strategy, value, 1)
    if total != value * replicas:
        raise UsageError(
            f"{name} is {value:g} here, but not in every worker: start all of them "
            "with the same flags and the same --workdir, on a disk that they share"
        )


def _several(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _sum(strategy: tf.distribute.Strategy, *values: float) -> list[float]:
    """Sums numbers over all replicas, each of which has those of its worker."""
    sums = _summed(strategy, tf.constant(values, tf.float64))
    return [float(x) for x in strategy.experimental_local_results(sums)[0].numpy()]


@tf.function(autograph=False)
def _summed(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    def add() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        mine = tf.identity(values)  # on this replica's device, which the sum asks for
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    return strategy.run(add)
