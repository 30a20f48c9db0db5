"""Lion, LAMB and Muon in a Trainer: on replicas, and after a kill."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import LAMB, Lion, Muon
from lenet_tf.train import Update

RATE = 0.03


class Net(tf.Module):
    """Three convolutions, a kernel and a bias each, one for each optimizer."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.lion, self.lamb, self.muon = (
            lenet_tf.nn.Conv2D(4, 1, 2, (0, i), f"part{i}") for i in range(3)
        )

    def __call__(self, x: tf.Tensor) -> list[tf.Tensor]:
        parts = self.lion, self.lamb, self.muon
        return [tf.reduce_sum(tf.tanh(part(x)), [1, 2, 3]) for part in parts]


def forward(model: Net, batch: Mapping[str, tf.Tensor], training: bool) -> dict:
    errors = [out - batch["y"] for out in model(batch["x"])]
    losses = {f"loss{i}": error**2 for i, error in enumerate(errors)}
    return {"loss": tf.add_n(list(losses.values())), **losses}


def make_trainer(replicas: int) -> lenet_tf.Trainer:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model, rate = Net(), tf.Variable(RATE)
    updates = {
        "lion": Update(
            model.lion, Lion(lambda step: RATE * 0.99 ** tf.cast(step, tf.float32))
        ),
        "lamb": Update(model.lamb, LAMB(RATE), clip_norm=1.0),
        "muon": Update(model.muon, Muon(rate)),
    }
    return lenet_tf.Trainer(
        model, updates, forward, strategy=strategy, steps_per_loop=4
    )


def batches() -> lenet_tf.Batches:
    """20 examples in batches of 8: the last one is ragged."""
    x = np.random.default_rng(0).normal(size=[20, 4, 4, 1]).astype(np.float32)
    return lenet_tf.Batches({"x": x, "y": np.tanh(x.mean((1, 2, 3)))}, 8, seed=1)


def copies_of(trainer: lenet_tf.Trainer) -> list[np.ndarray]:
    """Weights and slots: every replica's copy of each."""
    optimizers = [update.optimizer for update in trainer.state.updates.values()]
    variables = [v for part in (trainer.model, *optimizers) for v in part.variables]
    local = trainer.strategy.experimental_local_results
    return [np.stack([copy.numpy() for copy in local(v)]) for v in variables]


@pytest.fixture(scope="module")
def undisturbed() -> dict[int, tuple[dict, list[np.ndarray]]]:
    """Number of replicas -> history, and copies of weights and slots at the end."""
    ends = {}
    for replicas in (1, 2, 4):
        trainer = make_trainer(replicas)
        history = trainer.fit(batches(), epochs=5)
        ends[replicas] = history, copies_of(trainer)
    return ends


def test_replicas_train_as_one_and_stay_alike(
    undisturbed: dict[int, tuple[dict, list[np.ndarray]]],
) -> None:
    for history, copies in undisturbed.values():
        for one, copy in zip(undisturbed[1][1], copies, strict=True):
            np.testing.assert_array_equal(copy, np.broadcast_to(copy[0], copy.shape))
            np.testing.assert_allclose(copy[0], one[0], rtol=1e-4, atol=1e-5)
        for i in range(3):
            assert history[f"loss{i}"][-1] < 0.8 * history[f"loss{i}"][0]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    undisturbed: dict[int, tuple[dict, list[np.ndarray]]],
    replicas: int,
    tmp_path: pathlib.Path,
) -> None:
    def kill(moment: lenet_tf.Moment) -> None:
        if moment.step >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(replicas).fit(
            batches(),
            epochs=5,
            saver=lenet_tf.Saver(tmp_path, steps=4),
            actions=[kill],
        )
    resumed = make_trainer(replicas)
    history = resumed.fit(batches(), epochs=5, saver=lenet_tf.Saver(tmp_path))
    assert history == undisturbed[replicas][0]
    ends = zip(copies_of(resumed), undisturbed[replicas][1], strict=True)
    for ours, theirs in ends:
        np.testing.assert_array_equal(ours, theirs)
