"""Examples of different lengths: batches are padded to one of a few lengths."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.data import Records
from lenet_tf.data.batches import Batches
from lenet_tf.errors import DataError, UsageError

N = 23
BUCKETS = {"tokens": (2, 4, 9), "words": (10,)}
LENGTHS = np.array(
    [3, 0, 1, 9, 2, 4, 1, 1, 0, 2, 2, 1, 5, 9, 1, 1, 1, 2, 4, 4, 3, 1, 2]
)
TOKENS = [np.arange(n, dtype=np.int64) + 100 * i + 1 for i, n in enumerate(LENGTHS)]
WORDS = [np.array([f"é{j}" for j in range(n % 4)], object) for n in LENGTHS]
LABELS = np.arange(N, dtype=np.int32)
WEIGHTS = np.where(LABELS % 5 == 3, 0, 1 + LABELS % 2).astype(np.float32)


def row(i: int) -> dict[str, Any]:
    return {
        "tokens": TOKENS[i],
        "words": WORDS[i],
        "label": LABELS[i],
        "weight": WEIGHTS[i],
    }


def arrays() -> dict[str, Any]:
    return {
        "tokens": tf.ragged.constant([t.tolist() for t in TOKENS], tf.int64),
        "words": tf.ragged.constant([w.tolist() for w in WORDS], tf.string),
        "label": LABELS,
        "weight": WEIGHTS,
    }


class Rows:
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        return row(i)


def dataset(epoch: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        lambda: map(row, range(N)),
        output_signature={
            "tokens": tf.TensorSpec([None], tf.int64),
            "words": tf.TensorSpec([None], tf.string),
            "label": tf.TensorSpec([], tf.int32),
            "weight": tf.TensorSpec([], tf.float32),
        },
    )


SOURCES: dict[str, Callable[[], Any]] = {
    "ragged": arrays,
    "lists": lambda: {**arrays(), "tokens": TOKENS, "words": [*map(list, WORDS)]},
    "rows": Rows,
    "dataset": dataset,
    "slices": lambda: tf.data.Dataset.from_tensor_slices(arrays()),
    "epochs": lambda: dataset,
}


def batches_of(kind: str, **settings: Any) -> Batches:
    if kind in ("dataset", "epochs"):
        settings["examples"] = N
    return Batches(SOURCES[kind](), 4, buckets=BUCKETS, **settings)


def steps_of(batches: Batches, **settings: Any) -> list[dict[str, np.ndarray]]:
    """All batches of two epochs, one by one."""
    blocks = batches.blocks(epochs=2, **settings)
    return [
        {name: values[i].numpy() for name, values in block.items()}
        for block in blocks
        for i in range(len(block["weight"]))
    ]


def assert_same(a: list[dict], b: list[dict]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert values.dtype == right[name].dtype
            np.testing.assert_array_equal(values, right[name])


@pytest.mark.parametrize("as_given", [False, True], ids=["replaced", "as_given"])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_batch_is_padded_by_hand(kind: str, as_given: bool) -> None:
    steps = steps_of(batches_of(kind), replicas=3, steps_per_loop=4, as_given=as_given)
    assert len(steps) == 12
    for number, batch in enumerate(steps):
        first = number % 6 * 4
        index = range(first, min(first + 4, N))
        counted = [i for i in index if as_given or WEIGHTS[i]]
        wanted = max(LENGTHS[i] for i in counted)
        size = next(b for b in BUCKETS["tokens"] if b >= wanted)
        assert batch["tokens"].shape == (6, size)
        assert batch["words"].shape == (6, 10)
        assert batch["tokens_length"].dtype == np.int32
        np.testing.assert_array_equal(
            batch["weight"], [*WEIGHTS[index], *[0] * (6 - len(index))]
        )
        for place, i in enumerate(index):
            if i in counted:
                padded = np.pad(TOKENS[i], [0, size - LENGTHS[i]])
                np.testing.assert_array_equal(batch["tokens"][place], padded)
                assert batch["tokens_length"][place] == LENGTHS[i]
                words = [w.encode() for w in WORDS[i]] + [b""] * (10 - len(WORDS[i]))
                assert batch["words"][place].tolist() == words
        assert (batch["tokens_length"] <= size).all()
        positions = np.arange(size) >= batch["tokens_length"][:, None]
        assert not batch["tokens"][positions].any()


@pytest.mark.parametrize("kind", [kind for kind in SOURCES if kind != "ragged"])
def test_every_kind_of_source_gives_the_same(kind: str) -> None:
    def real(kind: str) -> list[dict[str, np.ndarray]]:
        steps = steps_of(batches_of(kind))
        return [{k: v[b["weight"] > 0] for k, v in b.items()} for b in steps]

    assert_same(real(kind), real("ragged"))
    assert batches_of(kind).spec(2) == batches_of("ragged").spec(2)


@pytest.mark.parametrize("seed", [None, 3])
def test_shuffled_batches_do_not_depend_on_how_blocks_are_cut(seed: int | None) -> None:
    batches = batches_of("ragged", seed=seed)
    one_by_one = steps_of(batches, steps_per_loop=1)
    assert_same(steps_of(batches, steps_per_loop=5), one_by_one)
    assert_same(steps_of(batches, steps_per_loop=5, max_bytes=500), one_by_one)
    assert_same(steps_of(batches_of("rows", seed=seed)), one_by_one)
    for start in (1, 5, 8):
        assert_same(steps_of(batches, start_step=start), one_by_one[start:])


def test_more_replicas_add_rows_and_no_length() -> None:
    one = steps_of(batches_of("ragged", seed=1))
    for replicas in (2, 3, 4):
        more = steps_of(batches_of("ragged", seed=1), replicas=replicas)
        for a, b in zip(one, more, strict=True):
            np.testing.assert_array_equal(a["tokens"], b["tokens"][:4])


@pytest.mark.parametrize("kind", ["ragged", "rows", "dataset"])
def test_workers_pad_to_the_largest_length(kind: str) -> None:
    whole = steps_of(batches_of(kind), replicas=2)
    parts = [steps_of(batches_of(kind), replicas=2, part=(i, 2)) for i in range(2)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step]["tokens"] for part in parts])
        assert joined.shape == (4, 9)
        size = batch["tokens"].shape[1]
        counted = batch["weight"] > 0
        np.testing.assert_array_equal(joined[counted, :size], batch["tokens"][counted])
        assert not joined[counted, size:].any()


def test_an_endless_dataset() -> None:
    endless = Batches(dataset().repeat(), 4, steps_per_epoch=5, buckets=BUCKETS)
    sizes = [b["tokens"].shape[1] for b in steps_of(endless)]
    index = [[(4 * step + i) % N for i in range(4)] for step in range(10)]
    longest = [
        max((LENGTHS[i] for i in four if WEIGHTS[i]), default=0) for four in index
    ]
    assert sizes == [next(b for b in (2, 4, 9) if b >= n) for n in longest]


def text_records(path: pathlib.Path, **settings: Any) -> Records:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for tokens, words in zip(TOKENS, WORDS, strict=True):
            numbers = tf.train.Int64List(value=tokens)
            texts = tf.train.BytesList(value=[w.encode() for w in words])
            feature = {
                "tokens": tf.train.Feature(int64_list=numbers),
                "words": tf.train.Feature(bytes_list=texts),
                "label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[len(tokens)])
                ),
            }
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())
    ragged = {
        "tokens": tf.io.RaggedFeature(tf.int64),
        "words": tf.io.RaggedFeature(tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    return Records(str(path), ragged, **settings)


@pytest.mark.parametrize("as_given", [False, True], ids=["replaced", "as_given"])
def test_records_of_different_lengths(tmp_path: pathlib.Path, as_given: bool) -> None:
    arrays = {"tokens": TOKENS, "words": [*map(list, WORDS)], "label": LENGTHS}
    one_by_one = text_records(tmp_path / "a", decode=lambda parsed: parsed)
    whole = Batches(arrays, 4, seed=2, buckets=BUCKETS)
    for records in (text_records(tmp_path / "a"), one_by_one):
        batches = Batches(records, 4, seed=2, buckets=BUCKETS)
        assert batches.spec(1) == whole.spec(1)
        for replicas in (1, 3):
            assert_same(
                steps_of(batches, replicas=replicas, as_given=as_given),
                steps_of(whole, replicas=replicas, as_given=as_given),
            )


def test_a_record_that_is_too_long_is_named(tmp_path: pathlib.Path) -> None:
    batches = Batches(
        text_records(tmp_path / "a"), 4, buckets={"tokens": (4, 8), "words": 9}
    )
    with pytest.raises(
        DataError, match=r"^entry 'tokens' of example 3 has the length 9"
    ):
        list(batches.blocks(epochs=1))


def test_rows_with_more_axes() -> None:
    sounds = [np.ones([n, 2, 3], np.float32) * n for n in (1, 4, 2)]
    (a, b) = steps_of(Batches({"s": sounds}, 2, buckets={"s": (2, 5)}))[:2]
    assert a["s"].shape == (2, 5, 2, 3)
    assert b["s"].shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(a["s"][1, :, 0, 0], [4, 4, 4, 4, 0])


def test_other_tokens_are_other_data() -> None:
    a, b = ({"t": [[1, 2], [n]]} for n in (3, 4))
    one, two = (Batches(d, 2, buckets={"t": 2}).identity() for d in (a, b))
    assert one != two


@pytest.mark.parametrize(
    "buckets",
    [{"t": ()}, {"t": (4, 2)}, {"t": (0, 2)}, {"t": (2.5,)}, {"weight": 2}],
    ids=str,
)
def test_wrong_buckets_are_refused(buckets: dict) -> None:
    with pytest.raises(UsageError, match=r"^buckets has .*: give") as error:
        Batches({"t": [[1]], "weight": [1.0]}, 1, buckets=buckets)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_too_long_is_named(kind: str) -> None:
    settings = {"examples": N} if kind in ("dataset", "epochs") else {}
    where = "an example" if kind in ("dataset", "epochs", "slices") else "example 3"
    line = (
        f"^entry 'tokens' of {where} has the length 9, above 8, its largest bucket: g"
    )
    with pytest.raises(DataError, match=line):
        batches = Batches(
            SOURCES[kind](), 4, buckets={"tokens": (4, 8), "words": 9}, **settings
        )
        list(batches.blocks(epochs=1))


@pytest.mark.parametrize(
    ("source", "buckets", "line"),
    [
        ({"x": [[1]]}, {"y": 2}, "^buckets has 'y', but the examples have x$"),
        ({"x": [[1]], "x_length": [1]}, {"x": 2}, "'x_length', where the lengths"),
        ({"x": [1, 2]}, {"x": 2}, "entry 'x' has buckets, so it must be a ragged"),
        ({"x": tf.ragged.constant([[1]])}, {}, r"buckets=\{'x': \(32, 64\)\}"),
        (
            tf.data.Dataset.range(3).map(lambda i: {"x": i}),
            {"y": 2},
            "^buckets has 'y'",
        ),
        (tf.data.Dataset.range(3).map(lambda i: {"x": i}), {"x": 2}, "must be a dense"),
        ({"x": [[1], [2, 3]]}, None, r"buckets=\{'x': \(32, 64\)\}"),
        ({"x": [[1]]}, (3, 4), r"^buckets is \(3, 4\): give the lengths of each"),
        ({"x": [["a"], [2]]}, {"x": 2}, "rows differ in dtype: give all"),
        (
            {"x": [np.array([1]), np.array([0.5])]},
            {"x": 2},
            "rows differ in dtype: give all",
        ),
        (dataset(), {}, r"'tokens' of the dataset .* buckets=\{'tokens': \(32, 64\)\}"),
    ],
    ids=[
        "missing",
        "taken",
        "numbers",
        "unnamed",
        "stream",
        "scalar",
        "unnamed lists",
        "tuple",
        "mixed",
        "mixed numbers",
        "unnamed stream",
    ],
)
def test_what_does_not_fit_is_refused(source: Any, buckets: Any, line: str) -> None:
    with pytest.raises(UsageError, match=line) as error:
        Batches(source, 1, buckets=buckets)
    assert "\n" not in str(error.value)


def test_nested_elements_have_the_names_that_rows_have() -> None:
    class Nested:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"box": {"x": np.float32(i), "pair": (np.int32(i), i % 2 == 0)}}

    nested = tf.data.Dataset.range(5).map(
        lambda i: {
            "box": {
                "x": tf.cast(i, tf.float32),
                "pair": (tf.cast(i, tf.int32), i % 2 == 0),
            }
        }
    )
    a, b = steps_of(Batches(Nested(), 5)), steps_of(Batches(nested, 5))
    assert sorted(a[0]) == ["box/pair/0", "box/pair/1", "box/x", "weight"]
    assert_same(a, b)
    pairs = tf.data.Dataset.range(5).map(lambda i: (i, {"x": i}))
    assert sorted(steps_of(Batches(pairs, 2))[0]) == ["0", "1/x", "weight"]


@pytest.mark.parametrize("by_row", [False, True], ids=["memory", "row"])
def test_a_number_that_int32_cannot_hold_is_named(by_row: bool) -> None:
    rows = [[1], [2, 2**40]]
    source = [{"x": row} for row in rows] if by_row else {"x": rows}
    with pytest.raises(DataError, match=r"'x'.* has 1099511627776, which int32 cannot"):
        list(Batches(source, 2, buckets={"x": 2}).blocks(epochs=1))
