"""Behaviour of lenet_tf.data.sources, seen through batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.data.batches import Batches
from lenet_tf.errors import UsageError

N = 23
ARRAYS = {"id": np.arange(N), "image": np.zeros([N, 3, 2, 1], np.uint8)}


def stream(arrays: dict[str, Any] = ARRAYS) -> tf.data.Dataset:
    """The examples as a dataset of dicts."""
    return tf.data.Dataset.from_tensor_slices(arrays)


def unknown_length() -> tf.data.Dataset:
    """Twenty examples that are not known to be as many."""
    return stream().filter(lambda example: example["id"] >= 3)


def test_length_of_a_dataset_that_cannot_tell_is_taken_from_the_caller() -> None:
    data = Batches(unknown_length(), 8, examples=20)
    assert (data.examples, data.steps_per_epoch) == (20, 3)
    ids = [
        int(i)
        for block in data.blocks(epochs=1)
        for i in tf.boolean_mask(block["id"], block["weight"] > 0)
    ]
    assert ids == list(range(3, N))


def test_a_dataset_of_unknown_length_is_refused_with_both_ways_to_tell_it() -> None:
    with pytest.raises(UsageError, match=r"examples=N.*assert_cardinality\(N\)"):
        Batches(unknown_length(), 8)


@pytest.mark.parametrize("examples", [10, 30])
def test_a_stream_of_another_length_than_it_is_said_to_have_is_an_error(
    examples: int,
) -> None:
    with pytest.raises(UsageError, match=f"does not have {examples} examples"):
        list(Batches(unknown_length(), 4, examples=examples).blocks(epochs=1))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(stream().repeat(), r"endless: remove \.repeat\(\)", id="repeat"),
        pytest.param(
            unknown_length().repeat(), r"endless: remove \.repeat\(\)", id="filter"
        ),
        pytest.param(
            stream().batch(4),
            r"look like batches \(id: \(None,\), .*unbatch\(\)",
            id="batched",
        ),
        pytest.param(
            stream().map(lambda e: {**e, "part": e["image"][: e["id"] % 3]}),
            r"entry 'part' of the dataset has the shape \(None, 2, 1\), .*resize",
            id="unknown dimension",
        ),
        pytest.param(
            tf.data.Dataset.range(3).map(
                lambda i: {
                    "i": i,
                    "x": tf.py_function(lambda: 1.0, [], tf.float32),
                }
            ),
            "entry 'x' of the dataset has the shape unknown, .*ensure_shape",
            id="unknown rank",
        ),
        pytest.param(
            stream({"x": tf.ragged.constant([[1], [2, 3]]), "y": [1, 2]}),
            "entry 'x' of the dataset is a RaggedTensorSpec: .*dense",
            id="ragged",
        ),
        pytest.param(
            stream({"x": [1, 2], "weight": np.ones([2, 3])}),
            r"'weight' has the shape \(3,\).*one number",
            id="weights",
        ),
        pytest.param(lambda epoch: None, "returned a NoneType for epoch 0", id="none"),
        pytest.param({"x": {"a": [1]}}, "entry 'x' is not an array", id="nested"),
        pytest.param({"x": [[1], [2, 3]]}, "entry 'x' is not an array", id="lists"),
        pytest.param(
            {"x": np.array([[1], [2, 3]], object)},
            "entry 'x' is not an array",
            id="objects",
        ),
        pytest.param({1: np.arange(3)}, "named 1: .*string", id="name"),
        pytest.param(
            {"x": np.arange(3), "weight": np.array(["a", "b", "c"])},
            "'weight' has .*dtype string .*one number",
            id="weights of words",
        ),
        pytest.param(
            {"x": np.zeros(3), "y": np.zeros(4)}, r"\{'x': 3, 'y': 4\}", id="lengths"
        ),
        pytest.param((1, 2), "source is a tuple: give", id="tuple"),
        pytest.param(None, "source is a NoneType: give", id="nothing"),
        pytest.param({}, "give", id="empty"),
        pytest.param({"x": 5}, "give", id="scalar"),
    ],
)
def test_what_cannot_be_batched_is_refused_in_one_line_that_says_what_to_do(
    source: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Batches(source, 4)
    assert "\n" not in str(caught.value)


def test_a_seed_is_refused_with_a_dataset() -> None:
    with pytest.raises(UsageError, match="shuffle in the dataset"):
        Batches(stream(), 8, seed=0)


@pytest.mark.parametrize("source", [ARRAYS, stream()], ids=["arrays", "dataset"])
def test_another_number_of_examples_than_there_are_is_refused(source: Any) -> None:
    assert Batches(source, 8, examples=N).examples == N
    with pytest.raises(UsageError, match=f"examples is 6, but .* {N}"):
        Batches(source, 8, examples=6)


def test_lists_of_numbers_are_arrays() -> None:
    (block,) = Batches({"x": [1, 2, 3], "y": [0.5, 1.0, 2.0]}, 3).blocks(epochs=1)
    assert block["x"].dtype == tf.int32 and block["y"].dtype == tf.float32


WEIGHTED = {
    "x": np.array([np.nan, 1, 2, np.inf, 4, 5, np.nan], np.float32)[:, None],
    "label": np.array([-9, 1, 0, 77, 1, 0, 10**6]),
    "weight": np.array([0, 2, 0.5, 0, 1, 1, 0]),
}


def sources(arrays: dict[str, np.ndarray]) -> Iterator[Batches]:
    """Batches of two, the first and the last with bad rows of weight 0."""
    yield Batches(arrays, 2)
    yield Batches(arrays, 2, seed=1)
    yield Batches(stream(arrays), 2)


@pytest.mark.parametrize("kind", range(3), ids=["arrays", "shuffled", "dataset"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_rows_of_weight_0_show_an_example_that_counts(kind: int, replicas: int) -> None:
    data = list(sources(WEIGHTED))[kind]
    rows = [
        (float(x[0]), int(label), float(weight))
        for block in data.blocks(replicas, epochs=1)
        for x, label, weight in zip(
            tf.reshape(block["x"], [-1, 1]),
            tf.reshape(block["label"], [-1]),
            tf.reshape(block["weight"], [-1]),
            strict=True,
        )
    ]
    real = [(1.0, 1, 2.0), (2.0, 0, 0.5), (4.0, 1, 1.0), (5.0, 0, 1.0)]
    assert sorted(row for row in rows if row[2]) == real
    assert {row[:2] for row in rows} == {row[:2] for row in real}


def in_order(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Indices that sort rows by label and weight."""
    return np.lexsort((rows["weight"], rows["label"]))


@pytest.mark.parametrize("kind", range(3), ids=["arrays", "shuffled", "dataset"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_examples_of_weight_0_can_be_had_as_they_are(kind: int, replicas: int) -> None:
    data = list(sources(WEIGHTED))[kind]
    for _ in range(2):
        block, *none = data.blocks(replicas, epochs=1, as_given=True)
        assert not none
        real = {k: np.concatenate(v.numpy()[:, :2])[:7] for k, v in block.items()}
        if kind == 1:
            real = {k: v[in_order(real)] for k, v in real.items()}
        for name, values in WEIGHTED.items():
            expected = values[in_order(WEIGHTED)] if kind == 1 else values
            np.testing.assert_array_equal(real[name], expected)
        # Training with the same batches replaces them.
        (block,) = data.blocks(replicas, epochs=1)
        assert np.isfinite(block["x"]).all()


@pytest.mark.parametrize("kind", range(3), ids=["arrays", "shuffled", "dataset"])
def test_bad_values_in_examples_of_weight_0_do_not_stop_a_run(kind: int) -> None:
    class Line(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable([[0.1, -0.1]])

    def forward(model: Line, batch: Any, training: bool) -> dict[str, tf.Tensor]:
        logits = batch["x"] @ model.w
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return {"loss": loss}

    losses = []
    whole = {k: v[WEIGHTED["weight"] > 0] for k, v in WEIGHTED.items()}
    for arrays, batch_size in ((WEIGHTED, 7), (whole, 4)):
        data = Batches(stream(arrays) if kind == 2 else arrays, batch_size)
        trainer = lenet_tf.Trainer(Line(), lenet_tf.SGD(0.1), forward)
        losses.append(trainer.fit(data, epochs=3)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_weights_that_are_all_0_are_refused(streamed: bool) -> None:
    arrays = {"x": np.arange(5), "weight": np.zeros(5)}
    with pytest.raises(UsageError, match="every example has weight 0: give at least"):
        list(Batches(stream(arrays) if streamed else arrays, 2).blocks(epochs=1))


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    data = {"x": np.zeros(3), "weight": np.array([1.0, weight, 0.0])}
    with pytest.raises(UsageError, match="negative or NaN"):
        Batches(data, 2)


def endless(epoch: int = 0) -> tf.data.Dataset:
    """The numbers from 0 on."""
    return tf.data.Dataset.counter().map(lambda i: {"id": i})


@pytest.mark.parametrize("start", [0, 3, 5, 7, 10])
def test_epochs_of_an_endless_dataset_read_on(start: int) -> None:
    data = Batches(endless(), 4, steps_per_epoch=5)
    assert (data.steps_per_epoch, data.examples) == (5, 20)
    for part in ((0, 1), (1, 2)):
        blocks = list(data.blocks(2, 3, start_step=start, epochs=2, part=part))
        ids = np.concatenate([b["id"] for b in blocks]) if blocks else np.zeros([0, 4])
        first = part[0] * 2
        expected = np.arange(start * 4, 40).reshape(-1, 4)[:, first:]
        np.testing.assert_array_equal(ids if blocks else expected, expected)
        step = start
        for block in blocks:  # none crosses the end of an epoch
            last = step + len(block["id"]) - 1
            assert step // 5 == last // 5
            step = last + 1
        assert step == 10


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (ARRAYS, {}, "given with a dict"),
        (endless, {}, "given with a function"),
        (stream(), {}, r"ends after 23 examples: .*repeat\(\)"),
        (stream().repeat(), {"examples": 3}, "give one of them"),
        (stream().repeat(), {"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    ],
)
def test_steps_per_epoch_is_refused_with_what_ends(
    source: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Batches(source, 4, **{"steps_per_epoch": 5, **arguments})


def test_an_endless_dataset_that_ends_is_an_error() -> None:
    data = Batches(unknown_length(), 4, steps_per_epoch=3)
    with pytest.raises(UsageError, match=r"ended at step 5, .*add \.repeat\(\)"):
        list(data.blocks(epochs=2))
