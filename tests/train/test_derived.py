"""Scores from sums in a whole run: history, best row, replicas, resume."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.nn import Dense, confusion, softmax_cross_entropy
from lenet_tf.nn.scores import (
    auc,
    f1,
    iou,
    perplexity,
    pixel_confusion,
    score_histogram,
)
from lenet_tf.train import Action, Trainer

BINS = 20
EPOCHS = 6
DERIVED = {
    "f1": lambda values: f1(values["confusion"], "binary"),
    "auc": lambda values: auc(values["scores"]),
}


class Classifier(tf.Module):
    """[B, 3] -> [B, 2], linear."""

    def __init__(self) -> None:
        super().__init__(name="classifier")
        self.layer = Dense(3, 2, seed=[0, 4], name="layer")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Computes the logits."""
        return self.layer(x)


def forward(model: Classifier, batch: dict, training: bool) -> dict:
    logits = model(batch["x"])
    return {
        "loss": softmax_cross_entropy(logits, batch["label"]),
        "confusion": confusion(logits, batch["label"]),
        "scores": score_histogram(
            tf.nn.softmax(logits)[:, 1], batch["label"], bins=BINS
        ),
    }


def examples(count: int, seed: int) -> dict[str, np.ndarray]:
    """Noisy labels, a third of them 1, and some weights of 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[count, 3]).astype(np.float32)
    label = (x @ [1.0, -1.0, 0.5] + 1.5 * rng.normal(size=count) > 0.8).astype(np.int32)
    weight = rng.choice([0.0, 1.0, 2.0], count).astype(np.float32)
    return {"x": x, "label": label, "weight": weight}


TRAIN, HELD_OUT = examples(45, 0), examples(37, 1)


def make_trainer(replicas: int, rate: float = 0.5, steps_per_loop: int = 2) -> Trainer:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Classifier()
    return Trainer(
        model,
        lenet_tf.SGD(rate),
        forward,
        strategy=strategy,
        steps_per_loop=steps_per_loop,
        derived=DERIVED,
    )


class Kill:
    """Ends a run as a kill does, after the step was saved."""

    after_save = True

    def __init__(self, step: int | None) -> None:
        self._step = step

    def __call__(self, moment: lenet_tf.Moment) -> None:
        """Ends the run at the step."""
        if moment.step == self._step:
            raise KeyboardInterrupt


def fit(
    trainer: Trainer, folder: pathlib.Path, kill: int | None = None
) -> dict[str, list[float]]:
    """Trains on six steps an epoch, and is killed after step `kill`."""
    return trainer.fit(
        lenet_tf.Batches(TRAIN, 8, seed=0),
        epochs=EPOCHS,
        validation=lenet_tf.Batches(HELD_OUT, 16),
        saver=lenet_tf.Saver(folder, best="val_f1", steps=kill),
        actions=[Kill(kill)],
    )


def best_step(folder: pathlib.Path) -> int:
    record = json.loads((folder / "best" / "best.json").read_text())
    return record["checkpoints"][0]["step"]


def by_hand(model: Classifier, data: dict[str, np.ndarray]) -> dict[str, float]:
    """F1 and AUC by their definitions, from the scores of single examples."""
    label, weight = data["label"], data["weight"].astype(np.float64)
    score = tf.nn.softmax(model(data["x"])).numpy()[:, 1]
    guess = score > 0.5
    precision = weight[guess] @ label[guess] / weight[guess].sum()
    recall = weight[guess] @ label[guess] / (weight @ label)
    place = np.floor(score * BINS)
    above = np.sign(place[label == 1][:, None] - place[label == 0][None, :])
    pairs = np.outer(weight[label == 1], weight[label == 0])
    return {
        "f1": 2 * precision * recall / (precision + recall),
        "auc": float(np.average((above + 1) / 2, weights=pairs)),
    }


Run = tuple[Trainer, dict[str, list[float]], pathlib.Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Run]:
    """Number of replicas -> a whole run: trainer, history, directory."""

    @functools.cache
    def run(replicas: int) -> Run:
        trainer, folder = make_trainer(replicas), tmp_path_factory.mktemp("run")
        return trainer, fit(trainer, folder), folder

    return run


def test_each_row_has_the_scores_of_training_and_of_validation(
    runs: Callable[[int], Run],
) -> None:
    trainer, history, _ = runs(1)
    names = {"loss", "f1", "auc"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert all(len(values) == EPOCHS for values in history.values())
    result = trainer.evaluate(lenet_tf.Batches(HELD_OUT, 5))
    for name, value in by_hand(trainer.model, HELD_OUT).items():
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-12)
        assert result[name] == history[f"val_{name}"][-1]


def test_the_scores_of_training_are_of_all_its_batches_together() -> None:
    trainer = make_trainer(1, rate=1e-30)  # the weights stay as they are
    history = trainer.fit(lenet_tf.Batches(TRAIN, 8, seed=0), epochs=1)
    for name, value in by_hand(trainer.model, TRAIN).items():
        assert history[name] == [pytest.approx(value, rel=1e-12)]


def test_the_best_row_by_a_score_is_kept(runs: Callable[[int], Run]) -> None:
    _, history, folder = runs(1)
    best = int(np.argmax(history["val_f1"]))
    assert 0 < best < EPOCHS - 1  # neither the first nor the last by chance
    assert best_step(folder) == 6 * (best + 1)
    restored = Classifier()
    path = lenet_tf.checkpoint.find_checkpoint(folder, "best")
    lenet_tf.checkpoint.restore_model(restored, path)
    value = by_hand(restored, HELD_OUT)["f1"]
    assert value == pytest.approx(history["val_f1"][best], rel=1e-12)


@pytest.mark.parametrize("replicas", [2, 4])
def test_any_number_of_replicas_gives_the_same_scores(
    runs: Callable[[int], Run], replicas: int
) -> None:
    (_, expected, one), (_, history, several) = runs(1), runs(replicas)
    for name, values in expected.items():
        exact = name.removeprefix("val_") != "loss"  # made of counts
        np.testing.assert_allclose(history[name], values, rtol=0 if exact else 1e-5)
    assert best_step(several) == best_step(one)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_scores_of_a_killed_run_are_resumed_bit_for_bit(
    runs: Callable[[int], Run], replicas: int, tmp_path: pathlib.Path
) -> None:
    _, expected, folder = runs(replicas)
    for kill in (10, 24):  # in an epoch, with sums of its part, and at the end of one
        with pytest.raises(KeyboardInterrupt):
            fit(make_trainer(replicas), tmp_path, kill)
    assert fit(make_trainer(replicas), tmp_path) == expected
    assert best_step(tmp_path) == best_step(folder)


def test_a_stop_at_a_row_loses_neither_the_row_nor_the_best(
    runs: Callable[[int], Run], tmp_path: pathlib.Path
) -> None:
    _, expected, folder = runs(1)

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step == best_step(folder):
            raise lenet_tf.StopRequested

    def go(*actions: Action) -> dict[str, list[float]]:
        return make_trainer(1).fit(
            lenet_tf.Batches(TRAIN, 8, seed=0),
            epochs=EPOCHS,
            validation=lenet_tf.Batches(HELD_OUT, 16),
            saver=lenet_tf.Saver(tmp_path, best="val_f1"),
            actions=actions,
        )

    with pytest.raises(lenet_tf.StopRequested):
        go(stop)
    assert best_step(tmp_path) == best_step(folder)
    assert go() == expected


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda v: f1(v["confusoin"]), "'f1' reads 'confusoin', but the metrics are"),
        (lambda v: v["confusion"], "returns .* one number"),
        (lambda v: f1(v["confusion"], "binry"), "binry"),
        (3.0, r"derived has 3\.0"),
    ],
    ids=["missing", "matrix", "argument", "number"],
)
def test_a_wrong_score_is_refused_before_the_first_step(
    function: Callable, message: str
) -> None:
    def train() -> None:
        trainer = Trainer(
            Classifier(), lenet_tf.SGD(0.5), forward, derived={"f1": function}
        )
        trainer.fit(lenet_tf.Batches(TRAIN, 8), epochs=1)

    with pytest.raises(lenet_tf.UsageError, match=message):
        train()


class Scenes(tf.Module):
    """Logits of pixels [B, 5, 5, 3] and of tokens [B, 6, 7], of which it is unsure."""

    def __init__(self) -> None:
        super().__init__(name="scenes")
        self.sharpness = tf.Variable(1.0, name="sharpness")

    def __call__(self, logits: tf.Tensor) -> tf.Tensor:
        """Scales the logits."""
        return self.sharpness * logits


def of_scenes(model: Scenes, batch: dict, training: bool) -> dict:
    pixels, words = model(batch["pixels"]), model(batch["words"])
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["text"], words)
    there = tf.sequence_mask(batch["length"], 6, tf.float32)
    return {
        "loss": tf.reduce_sum(nll * there, axis=1),
        "nll": tf.reduce_sum(nll * there, axis=1, keepdims=True),
        "tokens": tf.reduce_sum(there, axis=1, keepdims=True),
        "pixel_confusion": pixel_confusion(pixels, batch["map"], ignored=0),
    }


def test_iou_and_perplexity_are_of_all_pixels_and_tokens(
    strategy: tf.distribute.Strategy,
) -> None:
    rng = np.random.default_rng(0)
    data = {
        "pixels": rng.normal(size=[13, 5, 5, 3]).astype(np.float32),
        "map": rng.integers(0, 3, [13, 5, 5]),
        "words": rng.normal(size=[13, 6, 7]).astype(np.float32),
        "text": rng.integers(0, 7, [13, 6]),
        "length": rng.integers(1, 7, 13),
    }
    derived = {
        "iou": lambda values: iou(values["pixel_confusion"]),
        "perplexity": lambda v: perplexity(v["nll"], v["tokens"]),
    }
    with strategy.scope():
        model = Scenes()
    trainer = Trainer(
        model, lenet_tf.SGD(0.1), of_scenes, strategy=strategy, derived=derived
    )
    result = trainer.evaluate(lenet_tf.Batches(data, 4))  # the last batch is padded
    counted, guess = data["map"] > 0, data["pixels"].argmax(axis=-1)
    shares = []
    for c in range(3):
        label, predicted = (data["map"] == c) & counted, (guess == c) & counted
        shares.append((label & predicted).sum() / (label | predicted).sum())
    assert result["iou"] == pytest.approx(np.mean(shares), rel=1e-12)
    log_sum = np.log(np.exp(data["words"].astype(np.float64)).sum(axis=-1))
    chosen = np.take_along_axis(data["words"], data["text"][..., None], -1)[..., 0]
    there = np.arange(6) < data["length"][:, None]
    expected = np.exp((log_sum - chosen)[there].mean())
    assert result["perplexity"] == pytest.approx(expected, rel=1e-6)
