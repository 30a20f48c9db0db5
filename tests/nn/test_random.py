"""Random numbers keyed by seed, step and example."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.nn.random import dropout, uniform


def batch(positions: list[int], seed: int = 1, step: int = 2) -> dict[str, tf.Tensor]:
    return {
        "position": tf.constant(positions, tf.int32),
        "seed": tf.constant([seed, step], tf.int64),
    }


@pytest.mark.parametrize("shape", [[], [7], [3, 5], [28, 28, 6]], ids=str)
def test_an_example_meets_the_same_numbers_in_any_share(shape: list[int]) -> None:
    whole = uniform(batch(list(range(33))), shape)
    assert whole.shape == [33, *shape]
    for share in ([0], [32], [1, 2, 3], list(range(16, 33))):
        np.testing.assert_array_equal(
            uniform(batch(share), shape), tf.gather(whole, share)
        )


def test_other_seeds_steps_and_salts_give_other_numbers() -> None:
    places = list(range(8))
    draws = [
        uniform(batch(places), [4]),
        uniform(batch(places, seed=2), [4]),
        uniform(batch(places, step=3), [4]),
        uniform(batch(places), [4], salt=1),
    ]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not np.isclose(one, other).any()


def test_the_numbers_are_uniform() -> None:
    draw = uniform(batch(list(range(100))), [1000]).numpy()
    assert draw.min() >= 0 and draw.max() < 1
    counts, _ = np.histogram(draw, 10, (0, 1))
    # 10,000 expected in each; the standard deviation is 95.
    assert np.abs(counts - 10_000).max() < 500


def test_dropout_keeps_the_mean_and_zeroes_the_rate() -> None:
    x = tf.ones([64, 500])
    y = dropout(batch(list(range(64))), x, 0.25).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(dropout(batch([0]), x[:1], 0.0), x[:1])
