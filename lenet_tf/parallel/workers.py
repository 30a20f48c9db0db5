"""What the workers of one run do together, and what only the chief does.

    with together(strategy, stop.check) as poll:
        check_alike(strategy, {"seed": config.seed, "examples": len(images)})
        trainer.fit(batches, epochs=3, saver=Saver(workdir), poll=poll)
    if is_chief(strategy):
        ...                               # writes

Without MultiWorkerMirroredStrategy there is one worker, the chief, and all of this does
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel import cluster
from lenet_tf.parallel.links import Links, links_of
from lenet_tf.parallel.watch import Watch
from lenet_tf.signals import SIGNALS, StopRequested

_T = TypeVar("_T")
# What collectives raise when another worker, or the connection to it, is gone, but for
# other reasons too.
_MAY_BE_A_LOSS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the worker that writes files and reports progress."""
    return not _several(strategy) or cluster.is_chief(strategy.cluster_resolver)


def is_chief_of(variable: tf.Variable) -> bool:
    """Whether this process is the chief of the strategy that made a variable."""
    strategy = getattr(variable, "distribute_strategy", None)
    return strategy is None or is_chief(strategy)


@contextlib.contextmanager
def together(
    strategy: tf.distribute.Strategy, poll: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Context in which all workers stop together, and none waits for a lost one.

    Args:
      strategy: Strategy of the run. A lost worker is noticed only if `make_strategy`
        made it.
      poll: Function that raises StopRequested when this process should stop.

    Yields:
      Function that all workers call, at the same steps, instead of `poll`. It raises
      StopRequested in all of them when `poll` does so in one.

    Raises:
      UsageError: A worker was lost. If this process waits in TensorFlow, it ends with
        that line on stderr and status 1.
    """
    if not _several(strategy):
        yield poll
        return
    with Watch(links_of.get(strategy, Links({}, {}, {}))) as watch:

        def poll_all() -> None:
            asked = [0] * signal.NSIG  # 1 at the signal's number, or at 0 for no signal
            try:
                poll()
            except StopRequested as stop:
                asked[stop.signum or 0] = 1
            workers = _sum(strategy, asked)
            for signum in (*SIGNALS, *range(1, signal.NSIG), None):
                if workers[signum or 0]:
                    watch.stop()  # the others may end while the chief still saves
                    raise StopRequested(signum)

        try:
            yield poll_all
        except _MAY_BE_A_LOSS as error:
            lost = watch.wait_for_loss()
            if lost is None:
                raise
            raise UsageError(lost) from error


def check_alike(strategy: tf.distribute.Strategy, values: Mapping[str, object]) -> None:
    """Checks in one all-reduce that each value is the same in all workers.

    All workers must call it, with the same names in the same order.

    Args:
      strategy: Strategy of the run.
      values: Values by name, each a string, number, Boolean, None, or a list or dict
        of these.

    Raises:
      UsageError: Some values differ; raised in all workers. The message gives their
        names and this worker's values.
    """
    if not _several(strategy) or not values:
        return
    # The numbers are small integers, so that float64 sums and squares are exact.
    parts = [part for item in values.items() for part in _digest(item)]
    squares = [part * part for part in parts]
    replicas, *sums = _sum(strategy, [1, *parts, *squares])
    # The variance is 0 only if all are equal, so all workers decide alike.
    equal = [
        total == part * replicas and square_total == part * part * replicas
        for part, total, square_total in zip(
            parts, sums[: len(parts)], sums[len(parts) :], strict=True
        )
    ]
    size = len(parts) // len(values)
    different = [
        f"{name} is {value}"
        for i, (name, value) in enumerate(values.items())
        if not all(equal[size * i : size * (i + 1)])
    ]
    if different:
        raise UsageError(
            f"{', '.join(different)} here, but not in every worker: start all workers "
            "with the same settings, the same data and one workdir on a disk that they "
            "share"
        )


def any_worker(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Returns in all workers whether a flag is true in one; all must call it."""
    if not _several(strategy):
        return flag
    # As many numbers as `together` sums, which are traced already.
    return _sum(strategy, [int(flag)] * signal.NSIG)[0] > 0


def same_steps(
    strategy: tf.distribute.Strategy,
    blocks: Iterable[_T],
    steps: Callable[[_T], int],
) -> Iterator[_T]:
    """Yields blocks of batches, if all workers have blocks of the same sizes.

    A worker whose data ends before the others' would leave them waiting forever in a
    step's all-reduce.

    Args:
      strategy: Strategy of the run.
      blocks: Blocks of this worker.
      steps: Function that returns the number of steps in a block, at least 1.

    Yields:
      The blocks.

    Raises:
      UsageError: The next block has another number of steps in another worker, or
        there is none. Raised in all workers, before any of them trains on it.
    """
    for block in blocks:
        check_alike(strategy, {_NEXT: steps(block)})
        yield block
    check_alike(strategy, {_NEXT: 0})


_NEXT = "the number of steps in the next block"


def _several(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _digest(item: tuple[str, object]) -> list[int]:
    """Returns a hash of a name and its value, as three 16-bit integers."""
    digest = hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode())
    data = digest.digest()
    return [int.from_bytes(data[i : i + 2], "big") for i in (0, 2, 4)]


def _sum(strategy: tf.distribute.Strategy, values: Sequence[float]) -> list[float]:
    """Sums numbers over all replicas, each of which has those of its worker."""
    sums = _summed(strategy, tf.constant(values, tf.float64))
    return [float(x) for x in strategy.experimental_local_results(sums)[0].numpy()]


@tf.function(autograph=False)
def _summed(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    def add() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        mine = tf.identity(values)  # on this replica's device, as all_reduce requires
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    return strategy.run(add)
