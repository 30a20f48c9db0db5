"""Two workers compare, stop and fail; tests start it and read what it prints.

python checks.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from lenet_tf import (
    SGD,
    Batches,
    Enough,
    Moment,
    StopRequested,
    Trainer,
    make_strategy,
)
from lenet_tf.errors import UsageError
from lenet_tf.nn import Dense
from lenet_tf.parallel import check_alike, is_chief, same_steps, together, watch

watch.LOST_SECONDS = 1.0
SAME = {"name": "x", "none": None, "yes": True, "number": 1.5, "list": [1, {"a": 2}]}


def unknown_length() -> tf.data.Dataset:
    wrong = tf.data.experimental.assert_cardinality(3)
    return tf.data.Dataset.range(2).apply(wrong)


def steps_until_enough(strategy: tf.distribute.Strategy, ends: bool) -> list[int]:
    """Trains for up to 9 steps; an action of this worker may end it after 3."""

    def forward(model: Dense, batch: dict, training: bool) -> dict:
        return {"loss": model(batch["x"])[:, 0] ** 2}

    def end(moment: Moment) -> None:
        if ends and moment.step == 3:
            raise Enough("this worker has seen enough")

    with strategy.scope():
        model = Dense(2, 1, (0, 0), "line")
    trainer = Trainer(model, SGD(0.1), forward, strategy=strategy, steps_per_loop=1)
    trainer.fit(Batches({"x": tf.ones([8, 2]).numpy()}, 4), steps=9, actions=[end])
    return [int(trainer.state.step.numpy()), trainer.record.ended or 0]


def main() -> None:
    strategy = make_strategy(kind="multi_worker", worker_timeout=60)
    worker = 0 if is_chief(strategy) else 1

    def tell(name: str, action: Callable[[], object]) -> None:
        """Prints what an action returns or raises."""
        try:
            result = action()
        except (UsageError, StopRequested, tf.errors.OpError) as error:
            result = [type(error).__name__, str(error).splitlines()[0]]
        print(json.dumps([name, result]), flush=True)

    def pairs(**values: tuple[object, object]) -> dict[str, object]:
        return {name: pair[worker] for name, pair in values.items()}

    def steps(*blocks: int) -> list[int]:
        trained: list[int] = []
        for block in same_steps(strategy, blocks, lambda block: block):
            trained.append(block)
        return trained

    def stop(request: StopRequested | None) -> None:
        def poll() -> None:
            if request is not None and worker == 1:
                raise request

        with together(strategy, poll) as poll_all:
            poll_all()

    def fail(action: Callable[[], object]) -> None:
        with together(strategy, lambda: None) as poll:
            poll()
            action()

    tell("same", lambda: check_alike(strategy, SAME))
    tell("one", lambda: check_alike(strategy, SAME | pairs(seed=(3, 4))))
    tell("two", lambda: check_alike(strategy, pairs(a=(0, 1), b=(7, 7), c=("x", None))))
    tell("kinds", lambda: check_alike(strategy, pairs(a=(1, True), b=(1, "1"))))
    tell("nothing", lambda: check_alike(strategy, {}))
    tell("equal steps", lambda: steps(3, 3, 1))
    tell("other steps", lambda: steps(3, (3, 2)[worker], 1))
    tell("fewer blocks", lambda: steps(*[3] * (3, 2)[worker]))
    tell("not stopped", lambda: stop(None))
    tell("stopped", lambda: stop(StopRequested()))
    tell("by signal", lambda: stop(StopRequested(15)))
    tell("by another signal", lambda: stop(StopRequested(10)))
    tell("enough", lambda: steps_until_enough(strategy, ends=worker == 1))
    # All workers are there, so this is no loss, though a loss has the same type.
    tell("error", lambda: fail(lambda: list(unknown_length())))


if __name__ == "__main__":
    main()
