"""Behaviour of lenet_tf.data.random_access, seen through batches and training."""

from __future__ import annotations

import gc
import pathlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import tensorflow as tf
from programs import run

import lenet_tf
from lenet_tf.data.batches import Batches
from lenet_tf.errors import DataError, UsageError

N = 23
ARRAYS = {
    "id": np.arange(N, dtype=np.int64),
    "image": np.arange(N * 6, dtype=np.uint8).reshape(N, 3, 2, 1),
    "name": np.array([f"é{i}" for i in range(N)], object),
}
WEIGHTS = np.array([0, 0, 2, 0.5] + [1.0] * (N - 4))


class Rows:
    """Examples as a user would write them; remembers which were read."""

    def __init__(self, example: Callable[[int], Any], examples: int = N) -> None:
        self._example, self._examples = example, examples
        self._lock = threading.Lock()
        self.read: list[int] = []

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, i: int) -> Any:
        with self._lock:
            self.read.append(i)
        return self._example(i)


def rows_of(arrays: dict[str, np.ndarray]) -> Rows:
    """The arrays as examples."""
    return Rows(lambda i: {k: v[i] for k, v in arrays.items()}, len(arrays["id"]))


def numpy(blocks: Any) -> list[dict[str, np.ndarray]]:
    """Blocks as NumPy arrays."""
    return [{k: v.numpy() for k, v in block.items()} for block in blocks]


def assert_same(a: Any, b: Any) -> None:
    """Holds two lists of blocks to be equal in every entry and dtype."""
    a, b = numpy(a), numpy(b)
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert values.dtype == right[name].dtype
            np.testing.assert_array_equal(values, right[name])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [None, 7])
def test_batches_are_those_of_the_same_arrays_in_memory(
    seed: int | None, weighted: bool
) -> None:
    arrays = {**ARRAYS, "weight": WEIGHTS} if weighted else ARRAYS
    by_row = Batches(rows_of(arrays), 5, seed=seed)
    resident = Batches(arrays, 5, seed=seed)
    for replicas in (1, 2, 4):
        assert by_row.spec(replicas) == resident.spec(replicas)
        for as_given in (False, True):
            blocks = [
                data.blocks(replicas, 3, epochs=2, as_given=as_given)
                for data in (by_row, resident)
            ]
            assert_same(*blocks)


def test_a_resumed_run_reads_nothing_of_what_came_before() -> None:
    arrays = {"id": np.arange(4000)}
    whole = Batches(arrays, 4, seed=3).blocks(1, 10, epochs=1)
    rest = [block for i, block in enumerate(whole) if i >= 90]
    rows = rows_of(arrays)
    data = Batches(rows, 4, seed=3)
    assert rows.read == [0, 0]
    del rows.read[:]
    assert_same(data.blocks(1, 10, start_step=900, epochs=1), rest)
    wanted = np.concatenate([block["id"] for block in rest]).ravel()
    assert len(rows.read) == 400
    np.testing.assert_array_equal(np.sort(rows.read), np.sort(wanted))


def test_padding_is_not_read_and_an_identity_reads_nothing() -> None:
    rows = rows_of(ARRAYS)
    data = Batches(rows, 20)
    del rows.read[:]
    assert (
        data.identity()["checksum"]
        == Batches(rows_of(ARRAYS), 9).identity()["checksum"]
    )
    assert rows.read == []
    list(data.blocks(replicas=4, epochs=1))
    assert sorted(rows.read) == list(range(N))


def test_another_shape_dtype_or_name_is_another_identity() -> None:
    def identity(entry: Any, name: str = "x") -> int | str | None:
        return Batches(Rows(lambda i: {name: entry}), 5).identity()["checksum"]

    others = {identity(np.zeros(2)), identity(np.zeros(3)), identity(np.zeros(2, "i1"))}
    assert len(others | {identity(np.zeros(2), "y")}) == 4


@pytest.mark.parametrize("kind", ["arrays", "rows", "stream"])
def test_parts_of_the_batches_make_up_the_whole(kind: str) -> None:
    stream = tf.data.Dataset.from_tensor_slices(
        {**ARRAYS, "name": list(ARRAYS["name"])}
    )
    source = {"arrays": ARRAYS, "rows": rows_of(ARRAYS), "stream": stream}[kind]
    data = Batches(source, 6, seed=None if kind == "stream" else 2)
    for as_given in (False, True):
        arguments: dict[str, Any] = {"epochs": 2, "as_given": as_given}
        whole = numpy(data.blocks(4, 3, start_step=1, **arguments))
        parts = [
            numpy(data.blocks(4, 3, start_step=1, part=(i, 4), **arguments))
            for i in range(4)
        ]
        for block, *pieces in zip(whole, *parts, strict=True):
            for name, values in block.items():
                joined = np.concatenate([piece[name] for piece in pieces], axis=1)
                np.testing.assert_array_equal(joined, values)


def test_each_of_four_workers_reads_a_quarter_of_the_examples() -> None:
    workers = [rows_of({"id": np.arange(320)}) for _ in range(4)]
    for i, rows in enumerate(workers):
        data = Batches(rows, 32, seed=0)
        del rows.read[:]
        list(data.blocks(4, epochs=1, part=(i, 4)))
        assert len(rows.read) == 80
    assert sorted(i for rows in workers for i in rows.read) == list(range(320))


class Pair(NamedTuple):
    """An example whose entries have names."""

    x: int
    y: dict[str, float]


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (lambda i: (np.uint8(i), "a"), {"0": np.uint8, "1": object}),
        (lambda i: Pair(i, {"a": 0.5, "b": i}), {"x": "i4", "y/a": "f4", "y/b": "i4"}),
        (lambda i: {"a": ([i, 2], {"b": True})}, {"a/0": "i4", "a/1/b": "?"}),
        (lambda i: {"a": np.zeros([2, 3], ">f8")}, {"a": "f8"}),
        (lambda i: {"a": b"\0\xff\0", "b": ["x", "yz"]}, {"a": object, "b": object}),
        (lambda i: {"a": tf.constant([1.0])}, {"a": "f4"}),
    ],
    ids=["tuple", "named tuple", "nested", "big-endian", "strings", "tensor"],
)
def test_any_structure_becomes_entries_by_name(
    example: Callable[[int], Any], expected: dict[str, Any]
) -> None:
    (block,) = numpy(Batches(Rows(example, 3), 3).blocks(epochs=1))
    found = {k: v.dtype for k, v in block.items() if k != "weight"}
    assert found == {k: np.dtype(v) for k, v in expected.items()}
    if "a" in expected and expected["a"] is object:
        assert block["a"][0, 2] == b"\0\xff\0" and list(block["b"][0, 2]) == [
            b"x",
            b"yz",
        ]


def odd(i: int) -> dict[str, Any]:
    """Example 13 is the odd one out."""
    return {"x": [0.0] * (3 if i == 13 else 2)}


def fail(example: Any) -> Any:
    """A transform that fails for example 13."""
    if example["id"] == 13:
        raise ValueError("bad\nimage")
    return example


@pytest.mark.parametrize(
    ("rows", "transform", "message"),
    [
        (
            rows_of(ARRAYS),
            fail,
            "transform fails for example 13: ValueError: bad image",
        ),
        (Rows(lambda i: {"x": [1, 2, 3][i % 13 // 12 * 9]}), None, r"example 12 .*Ind"),
        (Rows(odd), None, r"entry 'x' of example 13 is float64 \(3,\), but .*\(2,\)"),
        (Rows(lambda i: {"x": 1 if i < 13 else 0.5}), None, "'x' of example 13 is flo"),
        (Rows(lambda i: {"x": 2**i * 2**20}), None, "example 11 is 2147483648, which"),
        (Rows(lambda i: {"x": 0, **{"y": 1}} if i == 13 else {"x": 0}), None, "x, y"),
        (Rows(lambda i: {"x": 0, "weight": 13.0 - i}), None, "of example 14 is -1.0"),
    ],
    ids=["transform", "read", "shape", "kind", "range", "names", "weight"],
)
def test_a_bad_example_is_one_line_that_names_it(
    rows: Rows, transform: Any, message: str
) -> None:
    data = Batches(rows, 1, transform=transform)
    blocks = data.blocks(1, 1, epochs=1)
    with pytest.raises(DataError, match=message) as caught:
        list(blocks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (np.zeros([3, 2]), {}, 'example 0 is of type ndarray: .*lambda x: {"x": x}'),
        ([1, 2], {}, "example 0 is of type int"),
        ([{}], {}, "example 0 is empty"),
        ([{"a/b": 1, "a": {"b": 2}}], {}, "two entries 'a/b'"),
        ([{"a": {3: 2}}], {}, "named 3: .*string"),
        ([{"a": None}], {}, "'a' of example 0 is not an array of numbers or strings"),
        ([{"a": [[1], [2, 3]]}], {}, "'a' of example 0 is not an array"),
        ([{"a": np.datetime64("2020-01-01")}], {}, "'a' of example 0 is datetime64"),
        ([{"weight": "x"}], {}, "'weight' has .*one number"),
        ([{"weight": 0}] * 3, {}, "every example has weight 0"),
        ([], {}, "no examples: give at least one"),
        ([{"x": 1}], {"examples": 2}, "examples is 2, but .* 1"),
        ({"x": np.zeros(3), "y": 0}, {"transform": dict}, "lengths .*'y': 'none'"),
        (tf.data.Dataset.range(3), {"transform": dict}, r"use dataset\.map\(transform"),
    ],
)
def test_what_cannot_be_batched_is_refused_before_the_first_step(
    source: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Batches(source, 1, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "double",
    [
        lambda e: {"x": e["id"] * 2.0},
        lambda e: {"x": tf.cast(e["id"], tf.float64) * 2},
    ],
    ids=["NumPy", "TensorFlow"],
)
def test_transform_makes_the_example(double: Callable[[Any], Any]) -> None:
    for source in (ARRAYS, rows_of(ARRAYS)):
        data = Batches(source, 5, seed=1, transform=double)
        expected = Batches({"x": np.arange(N) * 2.0}, 5, seed=1)
        assert_same(data.blocks(2, epochs=2), expected.blocks(2, epochs=2))


def test_blocks_are_bounded_in_bytes() -> None:
    rows = Rows(lambda i: {"x": np.zeros(1000)}, 100)
    data = Batches(rows, 4)
    sizes = [len(b["x"]) for b in data.blocks(epochs=1, max_bytes=3 * 4 * 8000 + 100)]
    assert sizes == [3] * 8 + [1]


def memmaps(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """A regression of 50 examples, in memory-mapped files."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=[50, 3]).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", x @ np.array([1, -2, 3], np.float32))
    return {k: np.load(folder / f"{k}.npy", mmap_mode="r") for k in "xy"}


class Line(tf.Module):
    """A linear model."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.zeros([3]))


def squares(model: Line, batch: Any, training: bool) -> dict[str, tf.Tensor]:
    """Squared errors."""
    return {"loss": (tf.linalg.matvec(batch["x"], model.w) - batch["y"]) ** 2}


def trained(
    source: Any, strategy: tf.distribute.Strategy, folder: pathlib.Path, kill: int = 0
) -> np.ndarray:
    """Weights after three epochs of seven steps; a run to kill ends at that step."""

    def ends(moment: Any) -> None:
        if moment.step == kill:
            raise RuntimeError("killed")

    with strategy.scope():
        model = Line()
    trainer = lenet_tf.Trainer(
        model, lenet_tf.SGD(0.1), squares, strategy=strategy, steps_per_loop=4
    )
    saver = lenet_tf.Saver(folder, steps=4)
    trainer.fit(Batches(source, 8, seed=5), epochs=3, saver=saver, actions=[ends])
    return model.w.numpy()


def test_a_run_over_memory_maps_is_that_over_arrays_bit_for_bit(
    strategy: tf.distribute.Strategy, tmp_path: pathlib.Path
) -> None:
    maps = memmaps(tmp_path)
    arrays = {k: np.array(v) for k, v in maps.items()}
    expected = trained(arrays, strategy, tmp_path / "arrays")
    np.testing.assert_array_equal(trained(maps, strategy, tmp_path / "a"), expected)
    with pytest.raises(RuntimeError, match="killed"):
        trained(maps, strategy, tmp_path / "b", kill=21)
    rows = Rows(lambda i: {k: v[i] for k, v in maps.items()}, 50)
    resumed = trained(rows, strategy, tmp_path / "b")
    np.testing.assert_array_equal(resumed, expected)
    # The first example, twice, and what is left of the epoch after step 18.
    assert len(rows.read) == 2 + 50 - 4 * 8


def test_an_hdf5_file_is_read_by_row(tmp_path: pathlib.Path) -> None:
    file = h5py.File(tmp_path / "data.h5", "w")
    file["x"] = np.arange(60.0).reshape(20, 3)
    rows = Rows(lambda i: {"x": file["x"][i]}, 20)
    expected = Batches({"x": np.arange(60.0).reshape(20, 3)}, 6, seed=1)
    assert_same(Batches(rows, 6, seed=1).blocks(epochs=2), expected.blocks(epochs=2))


def test_memory_maps_are_not_copied(tmp_path: pathlib.Path) -> None:
    maps = memmaps(tmp_path)
    held = weakref.ref(maps["x"])
    data = Batches(maps, 8)
    next(data.blocks(epochs=1))
    del maps
    gc.collect()
    assert held() is not None  # the source reads from it
    del data
    gc.collect()
    assert held() is None  # and TensorFlow does not keep it


def test_a_bad_example_is_one_error_and_no_page_of_tensorflow(
    tmp_path: pathlib.Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, tensorflow as tf, lenet_tf\n"
        "def read(example):\n"
        "    image = tf.io.decode_image(example['file'])\n"
        "    return {'image': image}\n"
        "good = tf.io.encode_png(np.zeros([2, 2, 1], np.uint8)).numpy()\n"
        "files = np.array([good] * 40 + [b'bad'] + [good] * 59, object)\n"
        "data = lenet_tf.Batches({'file': files}, 4, transform=read)\n"
        "for block in data.blocks(steps_per_loop=2, epochs=2):\n"
        "    print(len(block['image']))\n"
    )
    finished = run(str(script))
    assert finished.status == 1
    assert finished.stdout.split() == ["2"] * 5
    *_, last = finished.stderr.splitlines()
    assert "DataError: transform fails for example 40: InvalidArgumentError: U" in last
    assert "{{" not in last
    assert "op_kernel" not in finished.stderr
    assert "shutdown" not in finished.stderr
