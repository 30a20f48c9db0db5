"""Random numbers keyed by seed, step and example."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.random import dropout, normal, uniform


def batch(positions: list[int], seed: int = 1, step: int = 2) -> dict[str, tf.Tensor]:
    return {
        "position": tf.constant(positions, tf.int32),
        "seed": tf.constant([seed, step], tf.int64),
    }


@pytest.mark.parametrize("shape", [[], [7], [3, 5], [28, 28, 6]], ids=str)
def test_an_example_meets_the_same_numbers_in_any_share(shape: list[int]) -> None:
    whole = uniform(batch(list(range(33))), shape, salt=0)
    assert whole.shape == [33, *shape]
    for share in ([0], [32], [1, 2, 3], list(range(16, 33))):
        np.testing.assert_array_equal(
            uniform(batch(share), shape, salt=0), tf.gather(whole, share)
        )


def test_other_seeds_steps_and_salts_give_other_numbers() -> None:
    places = list(range(8))
    draws = [
        uniform(batch(places), [4], salt=0),
        uniform(batch(places, seed=2), [4], salt=0),
        uniform(batch(places, step=3), [4], salt=0),
        uniform(batch(places), [4], salt=1),
    ]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not np.isclose(one, other).any()


def test_the_numbers_are_uniform() -> None:
    draw = uniform(batch(list(range(100))), [1000], salt=0).numpy()
    assert draw.min() >= 0 and draw.max() < 1
    counts, _ = np.histogram(draw, 10, (0, 1))
    # 10,000 expected in each; the standard deviation is 95.
    assert np.abs(counts - 10_000).max() < 500


def test_dropout_keeps_the_mean_and_zeroes_the_rate() -> None:
    x = tf.ones([64, 500])
    y = dropout(batch(list(range(64))), x, 0.25, salt=0).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(dropout(batch([0]), x[:1], 0.0, salt=0), x[:1])


def test_a_salt_must_be_given_lest_two_calls_draw_the_same_numbers() -> None:
    with pytest.raises(TypeError, match="salt"):
        uniform(batch([0]), [4])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="salt"):
        dropout(batch([0]), tf.ones([1, 4]), 0.5)  # type: ignore[call-arg]


def test_the_numbers_are_the_same_in_every_version() -> None:
    """Philox of (1, 2) folded with the salt, whatever the default generator is."""
    expected = np.float32([[0.39505613, 0.21397173], [0.7483517, 0.6383877]])
    np.testing.assert_array_equal(uniform(batch([0, 2]), [2], salt=5), expected)


@pytest.mark.parametrize("name", ["seed", "position"])
def test_a_batch_without_its_keys_is_refused_with_the_remedy(name: str) -> None:
    keyless = {k: v for k, v in batch([0]).items() if k != name}
    with pytest.raises(UsageError, match=f"no '{name}'.*hand on the batch"):
        uniform(keyless, [4], salt=0)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_of_dropout_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match=r"in \[0, 1\)"):
        dropout(batch([0]), tf.ones([1, 4]), rate, salt=0)


def test_a_share_far_from_the_first_draws_its_own_rows_only() -> None:
    """A table of all 2**30 rows would take 48 GiB."""
    places = [2**30, 2**30 + 2]
    draw = uniform(batch(places), [3, 5], salt=0)
    assert draw.shape == [2, 3, 5]
    both = uniform(batch([2**30 - 1, *places]), [3, 5], salt=0)
    np.testing.assert_array_equal(both[1:], draw)


@pytest.mark.parametrize("shape", [[], [3], [3, 5]], ids=str)
def test_the_numbers_are_those_of_one_large_table(shape: list[int]) -> None:
    seed = tf.random.experimental.stateless_fold_in(
        tf.constant([1, 2], tf.int64), 7, alg="philox"
    )
    table = tf.random.stateless_uniform([50, *shape], seed, alg="philox")
    for places in ([0, 1], [7, 8, 9], [49], [31, 30, 45]):
        np.testing.assert_array_equal(
            uniform(batch(places), shape, salt=7), tf.gather(table, places)
        )


def test_normal_numbers_have_mean_0_and_variance_1() -> None:
    draw = normal(batch(list(range(100))), [1000], salt=0).numpy()
    assert np.isfinite(draw).all()
    # The standard deviations are 0.0032 and 0.0045.
    assert abs(draw.mean()) < 0.013
    assert abs(draw.var() - 1) < 0.018
    within = [np.mean(np.abs(draw) < limit) for limit in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.006)
