"""The gradient through a sum over replicas, as in batch normalization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.parallel.collectives import all_reduce_sum

X = np.array([0.5, -1.0, 2.0, 3.0], np.float32)


def loss_of(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """A replica's loss: factor * (sum of x over the replicas) ** 3."""
    (total,) = all_reduce_sum([x])
    return factor * total**3


def by_tape(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = loss_of(x, factor)
    return tape.gradient(loss, x)


def by_tape_twice(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as outer:
        outer.watch(x)
        first = by_tape(x, factor)
    return outer.gradient(first, x)


def by_graph(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.gradients(loss_of(x, factor), x)[0]


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize(
    ("gradient", "in_graph"),
    [(by_tape, True), (by_tape, False), (by_tape_twice, True), (by_graph, True)],
    ids=["tape", "eager", "twice", "tf.gradients"],
)
def test_it_is_that_of_the_sum_of_all_replicas_losses(
    gradient: Callable[..., tf.Tensor], in_graph: bool, replicas: int
) -> None:
    strategy = lenet_tf.make_strategy(replicas)

    def on_replica() -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return gradient(tf.constant(X)[replica], tf.cast(replica + 1, tf.float32))

    def on_all() -> tuple[tf.Tensor, ...]:
        return strategy.experimental_local_results(strategy.run(on_replica))

    got = (tf.function(on_all) if in_graph else on_all)()
    # With s the sum of x, L = sum of factors * s ** 3 and dL/dx = 3 * factors * s ** 2;
    # the sum over replicas of these has the derivative replicas * 6 * factors * s.
    s, factors = X[:replicas].sum(), sum(range(1, replicas + 1))
    once, twice = 3 * factors * s**2, replicas * 6 * factors * s
    wanted = twice if gradient is by_tape_twice else once
    np.testing.assert_allclose(np.stack(got), [wanted] * replicas, rtol=1e-6)
