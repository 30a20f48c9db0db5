"""Behaviour of lenet_tf.train.metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.nn.losses import correct
from lenet_tf.parallel.collectives import all_reduce_sum
from lenet_tf.train.metrics import Accumulators, weighted_sums


def accumulate(
    metrics: Accumulators, values: dict[str, np.ndarray], weight: np.ndarray, batch: int
) -> None:
    """Updates the metrics with the values, cut into batches, on one replica."""
    strategy = tf.distribute.get_strategy()
    for start in range(0, len(weight), batch):
        cut = slice(start, start + batch)
        sums = weighted_sums(
            {k: tf.constant(v[cut]) for k, v in values.items()}, weight[cut]
        )
        strategy.run(metrics.update, args=(sums,))


def test_correct_is_one_where_the_largest_logit_is_at_the_label() -> None:
    logits = tf.constant([[0.1, 0.9, 0.0], [3.0, -1.0, 2.0], [0.0, 1.0, 2.0]])
    for dtype in (tf.int32, tf.int64):
        hits = correct(logits, tf.constant([1, 2, 2], dtype))
        np.testing.assert_array_equal(hits, [1.0, 0.0, 1.0])
        assert hits.dtype == tf.float32


def test_weighted_sums_are_the_sums_of_weight_times_value() -> None:
    rng = np.random.default_rng(0)
    loss, hit = rng.normal(size=[2, 37]).astype(np.float32)
    weight = rng.uniform(0.5, 2, 37).astype(np.float32)
    weight[[3, 8]] = 0
    sums = weighted_sums({"loss": loss, "hit": hit}, tf.constant(weight))
    assert set(sums) == {"loss", "hit", "weight", "examples"}
    wide = weight.astype(np.float64)
    assert float(sums["loss"]) == pytest.approx(float(wide @ loss), rel=1e-5)
    assert float(sums["hit"]) == pytest.approx(float(wide @ hit), rel=1e-5)
    assert float(sums["weight"]) == pytest.approx(float(wide.sum()), rel=1e-6)
    assert float(sums["examples"]) == 35


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_of_weight_0_does_not_count_even_if_it_is_not_finite(
    bad: float,
) -> None:
    sums = weighted_sums({"loss": tf.constant([1.0, bad])}, tf.constant([2.0, 0.0]))
    assert {k: float(v) for k, v in sums.items()} == {
        "loss": 2.0,
        "weight": 2.0,
        "examples": 1.0,
    }


def test_a_nan_of_an_example_that_counts_is_not_hidden() -> None:
    sums = weighted_sums({"loss": tf.constant([1.0, math.nan])}, tf.ones([2]))
    assert math.isnan(float(sums["loss"]))


def test_gradient_of_the_sum_passes_by_examples_of_weight_0() -> None:
    x = tf.constant([1.0, math.nan, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = weighted_sums({"loss": x * x}, tf.constant([1.0, 0.0, 2.0]))["loss"]
    gradient = tape.gradient(total, x).numpy()
    np.testing.assert_array_equal(gradient[[0, 2]], [2.0, 12.0])


def test_integer_and_boolean_values_are_summed_as_numbers() -> None:
    values = {"count": tf.constant([1, 2, 3]), "hit": tf.constant([True, False, True])}
    sums = weighted_sums(values, tf.ones([3]))
    assert (float(sums["count"]), float(sums["hit"])) == (6.0, 2.0)


def test_result_is_the_weighted_mean_and_not_a_mean_of_batch_means() -> None:
    metrics = Accumulators({"loss": []})
    loss = np.array([1, 1, 1, 9], np.float32)  # batches of 3 and 1
    accumulate(metrics, {"loss": loss}, np.ones(4, np.float32), batch=3)
    assert metrics.result() == {"loss": 3.0}


def test_fractional_weights_weigh_the_mean_but_count_as_one_example() -> None:
    metrics = Accumulators({"loss": []})
    weight = np.array([0.5, 1.5, 0.0], np.float32)
    accumulate(metrics, {"loss": np.array([4, 8, 99], np.float32)}, weight, batch=3)
    assert metrics.result() == {"loss": 7.0}
    assert int(metrics.examples) == 2


@pytest.mark.parametrize("batch", [1, 7, 32, 103])
def test_sums_do_not_depend_on_how_examples_are_cut_into_batches(batch: int) -> None:
    rng = np.random.default_rng(0)
    hit = rng.integers(0, 2, 103).astype(np.float32)
    loss = rng.normal(size=103).astype(np.float32)
    metrics = Accumulators({"loss": [], "accuracy": []})
    accumulate(
        metrics, {"loss": loss, "accuracy": hit}, np.ones(103, np.float32), batch
    )
    assert int(metrics.examples) == 103
    assert metrics.result()["accuracy"] == hit.sum(dtype=np.float64) / 103
    expected = loss.mean(dtype=np.float64)
    assert metrics.result()["loss"] == pytest.approx(expected, rel=1e-5)


def test_examples_are_counted_as_integers_where_float32_cannot() -> None:
    metrics = Accumulators({"loss": []})
    metrics.examples.assign(2**24)
    metrics.weight.assign(2.0**24)
    accumulate(metrics, {"loss": np.ones(1, np.float32)}, np.ones(1, np.float32), 1)
    assert metrics.examples.dtype == tf.int64
    assert int(metrics.examples) == 2**24 + 1
    assert float(metrics.weight) == 2**24 + 1


def test_result_of_nothing_is_nan() -> None:
    metrics = Accumulators({"loss": [], "accuracy": []})
    assert all(math.isnan(value) for value in metrics.result().values())
    accumulate(
        metrics,
        {k: np.ones(2, np.float32) for k in ("loss", "accuracy")},
        np.zeros(2, np.float32),
        batch=2,
    )
    assert all(math.isnan(value) for value in metrics.result().values())


def test_reset_forgets_everything() -> None:
    metrics = Accumulators({"loss": []})
    ones = np.ones(4, np.float32)
    accumulate(metrics, {"loss": 5 * ones}, ones, batch=4)
    metrics.reset()
    assert int(metrics.examples) == 0
    accumulate(metrics, {"loss": 2 * ones}, ones, batch=4)
    assert metrics.result() == {"loss": 2.0}


def test_results_have_the_loss_first_and_the_rest_by_name() -> None:
    names = ["top_5", "accuracy", "loss", "error"]
    assert list(Accumulators(dict.fromkeys(names, ())).result()) == [
        "loss",
        "accuracy",
        "error",
        "top_5",
    ]


def test_accumulators_are_checkpointed_but_not_trained() -> None:
    metrics = Accumulators({"loss": [], "accuracy": []})
    assert metrics.trainable_variables == ()
    assert len(metrics.variables) == 4


def test_replicas_accumulate_the_global_sums_each_in_its_own_copy(
    strategy: tf.distribute.Strategy,
) -> None:
    rng = np.random.default_rng(0)
    hit = rng.integers(0, 2, [3, 8]).astype(np.float32)  # 3 batches of 8
    weight = np.ones([3, 8], np.float32)
    weight[2, 5:] = 0  # the last one is ragged: with 4 replicas one gets nothing real
    with strategy.scope():
        metrics = Accumulators({"accuracy": []})
    share = 8 // strategy.num_replicas_in_sync

    @tf.function
    def step(hit: tf.Tensor, weight: tf.Tensor) -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        cut = slice(replica * share, (replica + 1) * share)
        sums = weighted_sums({"accuracy": hit[cut]}, weight[cut])
        reduced = all_reduce_sum(list(sums.values()))
        metrics.update(dict(zip(sums, reduced, strict=True)))

    for i in range(3):
        strategy.run(step, args=(tf.constant(hit[i]), tf.constant(weight[i])))
    for copy in strategy.experimental_local_results(metrics.examples):
        assert int(copy) == 21
    for copy in strategy.experimental_local_results(metrics.totals["accuracy"]):
        assert float(copy) == (hit * weight).sum()
    assert metrics.result()["accuracy"] == (hit * weight).sum(dtype=np.float64) / 21
    metrics.reset()
    for copy in strategy.experimental_local_results(metrics.examples):
        assert int(copy) == 0
