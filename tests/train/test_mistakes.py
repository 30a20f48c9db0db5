"""The worst mistakes of a classifier, and how they are written for TensorBoard."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from event_reader import events

import lenet_tf
from lenet_tf.errors import UsageError
from lenet_tf.train import Mistakes, TensorBoard

Batch = Mapping[str, tf.Tensor]
EXAMPLES, SIZE, CLASSES = 23, 4, 3


class Linear(tf.Module):
    """[B, 4, 4] -> [B, 3]"""

    def __init__(self) -> None:
        super().__init__(name="linear")
        values = np.random.default_rng(1).normal(size=[SIZE * SIZE, CLASSES])
        self.w = tf.Variable(values.astype(np.float32), name="w")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32) / 255
        return tf.reshape(x, [-1, SIZE * SIZE]) @ self.w


def forward(model: Linear, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
    logits = model(batch["image"])
    return {
        "loss": lenet_tf.softmax_cross_entropy(logits, batch["label"]),
        "accuracy": lenet_tf.correct(logits, batch["label"]),
    }


def probabilities(model: Linear, batch: Batch) -> tf.Tensor:
    return tf.nn.softmax(model(batch["image"]))


def arrays(**more: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, [EXAMPLES, SIZE, SIZE], np.uint8),
        "label": rng.integers(0, CLASSES, [EXAMPLES], np.int32),
        **more,
    }


def make_trainer(replicas: int = 1, ema: float | None = None) -> lenet_tf.Trainer:
    strategy = lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Linear()
    return lenet_tf.Trainer(
        model, lenet_tf.Adam(0.01), forward, strategy=strategy, ema=ema
    )


def found_by(trainer: lenet_tf.Trainer, search: Mistakes) -> list[Any]:
    search.check(trainer.state)
    return search.find(trainer.state)


def worst(weights: np.ndarray, data: Mapping[str, np.ndarray]) -> list[tuple[int, str]]:
    """Number of the example and text of all mistakes, computed in NumPy."""
    logits = data["image"].reshape([-1, SIZE * SIZE]) / 255 @ weights
    answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = answers[np.arange(EXAMPLES), data["label"]]
    return [
        (i, f"{label} as {row.argmax()}, {row.max():.0%}".replace("%", " %"))
        for i in np.argsort(own, kind="stable")
        if (label := data["label"][i]) != (row := answers[i]).argmax()
        and data.get("weight", np.ones(EXAMPLES))[i]
    ]


@pytest.mark.parametrize("batch_size", [23, 8, 5])
@pytest.mark.parametrize("replicas", [1, 2])
def test_each_mistake_is_found_once_and_the_worst_is_first(
    batch_size: int, replicas: int
) -> None:
    data = arrays(weight=(np.arange(EXAMPLES) % 5 > 0).astype(np.float32))
    trainer = make_trainer(replicas)
    expected = worst(trainer.model.w.numpy(), data)
    assert len(expected) > 6
    batches = lenet_tf.Batches(data, batch_size)
    for count in (4, 100):
        found = found_by(trainer, Mistakes(batches, probabilities, count=count))
        assert [mistake.text for mistake in found] == [t for _, t in expected[:count]]
        for mistake, (i, _) in zip(found, expected, strict=False):
            np.testing.assert_array_equal(mistake.image[:, :, 0], data["image"][i])


def test_names_of_classes_and_averaged_weights() -> None:
    data, trainer = arrays(), make_trainer(2, ema=0.9)
    trainer.fit(lenet_tf.Batches(data, 8, seed=0), epochs=2, progress=False)
    before = trainer.model.w.numpy()
    assert trainer.state.average is not None
    averages = trainer.state.average.averages[0].numpy()
    assert not np.array_equal(averages, before)
    names = ["zero", "one", "two"]
    search = Mistakes(lenet_tf.Batches(data, 8), probabilities, class_names=names)
    (i, text), *_ = worst(averages, data)
    (first, *_) = found_by(trainer, search)
    assert first.text.startswith(f"{names[data['label'][i]]} as ")
    assert first.text.endswith(text[-5:])
    np.testing.assert_array_equal(first.image[:, :, 0], data["image"][i])
    np.testing.assert_array_equal(trainer.model.w.numpy(), before)


def test_float_images_are_shown_from_black_to_white() -> None:
    data, trainer = arrays(), make_trainer()
    for low, high in ((0, 1), (-1, 1)):
        image = low + (high - low) * (data["image"] / np.float32(255))
        image[:, 0, :2] = low, high
        batches = lenet_tf.Batches({**data, "image": image}, 8)
        for mistake in found_by(trainer, Mistakes(batches, probabilities)):
            assert mistake.image.shape == (SIZE, SIZE, 1)
            assert (mistake.image.min(), mistake.image.max()) == (0, 255)


def fit(
    workdir: pathlib.Path,
    *actions: Any,
    replicas: int = 1,
    ema: float | None = None,
) -> lenet_tf.Trainer:
    trainer = make_trainer(replicas, ema)
    trainer.fit(
        lenet_tf.Batches(arrays(), 8, seed=0),  # 3 steps an epoch
        epochs=5,
        validation=lenet_tf.Batches(arrays(), 8),
        saver=lenet_tf.Saver(workdir, steps=2),
        actions=actions,
        progress=False,
    )
    return trainer


def board(folder: pathlib.Path, **options: Any) -> TensorBoard:
    search = Mistakes(lenet_tf.Batches(arrays(), 8), probabilities, **options)
    return TensorBoard(folder, mistakes=search)


def test_a_row_has_one_image_of_tiles_and_a_table_of_what_they_are(
    tmp_path: pathlib.Path,
) -> None:
    trainer = fit(tmp_path / "run", board(tmp_path / "tb", count=4, rows=2))
    found = events(tmp_path / "tb/validation")
    for tag in ("mistakes", "mistakes/list"):
        assert [step for step, _ in found[tag]] == [6, 12, 15]
    width, height, png = found["mistakes"][-1][1]
    assert (width, height) == (b"12", b"12")  # 2 x 2, each with a frame of a pixel
    sheet = tf.io.decode_png(png).numpy()[:, :, 0]
    expected = worst(trainer.model.w.numpy(), arrays())[:4]
    for place, (i, _) in enumerate(expected):
        top, left = 6 * (place // 2) + 1, 6 * (place % 2) + 1
        tile = sheet[top : top + SIZE, left : left + SIZE]
        np.testing.assert_array_equal(tile, arrays()["image"][i])
    texts = [text for _, text in expected]
    rows = found["mistakes/list"][-1][1].decode().splitlines()[2:]
    assert rows == [f"| {texts[0]} | {texts[1]} |", f"| {texts[2]} | {texts[3]} |"]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_search_changes_no_number_of_the_run(
    ema: float | None, tmp_path: pathlib.Path
) -> None:
    ours = fit(tmp_path / "a", board(tmp_path / "tb"), replicas=2, ema=ema)
    theirs = fit(tmp_path / "b", replicas=2, ema=ema)
    assert ours.record.history() == theirs.record.history()
    for own, other in zip(ours.model.w.values, theirs.model.w.values, strict=True):
        np.testing.assert_array_equal(own.numpy(), other.numpy())


def test_a_resumed_run_doubles_no_image(tmp_path: pathlib.Path) -> None:
    def die(moment: lenet_tf.Moment) -> None:
        if moment.step == 9:  # before the save
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "run", board(tmp_path / "tb"), die)
    killed = events(tmp_path / "tb/validation")["mistakes"]
    assert [step for step, _ in killed] == [3, 6, 9]
    fit(tmp_path / "run", board(tmp_path / "tb"))
    fit(tmp_path / "undisturbed", board(tmp_path / "other"))
    ours = events(tmp_path / "tb/validation")
    assert ours == events(tmp_path / "other/validation")
    assert [step for step, _ in ours["mistakes"]] == [3, 6, 9, 12, 15]


def test_a_run_without_mistakes_says_so(tmp_path: pathlib.Path) -> None:
    def right(model: Linear, batch: Batch) -> tf.Tensor:
        return tf.one_hot(batch["label"], CLASSES)

    search = Mistakes(lenet_tf.Batches(arrays(), 8), right)
    fit(tmp_path / "run", TensorBoard(tmp_path / "tb", mistakes=search))
    found = events(tmp_path / "tb/validation")
    assert {text for _, text in found["mistakes/list"]} == {b"no mistakes"}
    assert "mistakes" not in found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": np.zeros(9)}, "no 'image' in the data, which have x"),
        ({"image": np.zeros([9, 2, 2])}, "no 'label'"),
        ({"image": np.zeros([9, 2]), "label": np.zeros(9, int)}, r"shape \(2,\)"),
        (
            {"image": np.zeros([9, 2, 2], np.int32), "label": np.zeros(9, int)},
            "images are int32",
        ),
        ({"image": np.zeros([9, 2, 2]), "label": np.zeros(9)}, "labels are float64"),
    ],
)
def test_data_that_cannot_be_shown_are_refused(
    data: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Mistakes(lenet_tf.Batches(data, 4), probabilities)


def test_wrong_arguments_are_told_before_the_first_step(
    tmp_path: pathlib.Path,
) -> None:
    batches = lenet_tf.Batches(arrays(), 8)
    with pytest.raises(UsageError, match="count is 0 and rows 1"):
        Mistakes(batches, probabilities, count=0)
    with pytest.raises(UsageError, match="shuffled with seed 3"):
        Mistakes(lenet_tf.Batches(arrays(), 8, seed=3), probabilities)

    def changes(model: Linear, batch: Batch) -> tf.Tensor:
        model.w.assign_add(tf.ones_like(model.w))
        return probabilities(model, batch)

    for search, message in [
        (Mistakes(batches, lambda m, b: m(b["image"])), "such as tf.nn.softmax"),
        (Mistakes(batches, lambda m, b: m(b["image"])[:, 0]), r"shape \(8,\)"),
        (Mistakes(batches, changes), "the function changes w"),
        (
            Mistakes(batches, probabilities, class_names=["a"]),
            "1 class names for 3 classes",
        ),
    ]:
        with pytest.raises(UsageError, match=message) as error:
            fit(tmp_path / "run", TensorBoard(tmp_path / "tb", mistakes=search))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "tb").exists()
