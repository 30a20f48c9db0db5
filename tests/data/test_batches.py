"""Behaviour of lenet_tf.data.batches."""

from __future__ import annotations

import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.data.batches import Batches, Block
from lenet_tf.errors import UsageError

ROOT = pathlib.Path(__file__).parents[2]
N = 23
ARRAYS = {
    "id": np.arange(N, dtype=np.int64),
    "image": np.arange(N * 6, dtype=np.uint8).reshape(N, 3, 2, 1),
}


def stream(examples: int = N) -> tf.data.Dataset:
    """The same examples as a dataset of dicts."""
    arrays = {name: array[:examples] for name, array in ARRAYS.items()}
    return tf.data.Dataset.from_tensor_slices(arrays)


def shuffled_stream(epoch: int) -> tf.data.Dataset:
    """The same examples in an order of each epoch's own."""
    order = np.random.default_rng(epoch).permutation(N)
    return tf.data.Dataset.from_tensor_slices({k: v[order] for k, v in ARRAYS.items()})


SOURCES: dict[str, dict[str, Any]] = {
    "arrays": {"source": ARRAYS, "seed": 7},
    "arrays in order": {"source": ARRAYS},
    "dataset": {"source": stream()},
    "dataset of the epoch": {"source": shuffled_stream},
}
every_source = pytest.mark.parametrize(
    "source", [pytest.param(source, id=name) for name, source in SOURCES.items()]
)


def batches(blocks: Iterable[Block]) -> list[dict[str, np.ndarray]]:
    """Takes blocks apart into batches."""
    return [
        {name: values[i].numpy() for name, values in block.items()}
        for block in blocks
        for i in range(block["weight"].shape[0])
    ]


def real_ids(batch_list: list[dict[str, np.ndarray]]) -> list[int]:
    """The ids of all examples with a weight, in order."""
    return [
        int(i)
        for batch in batch_list
        for i, weight in zip(batch["id"], batch["weight"], strict=True)
        if weight
    ]


def assert_same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> None:
    """Holds two lists of batches to be equal in every entry."""
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


@every_source
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [2, 5, 23])
def test_every_example_comes_exactly_once_an_epoch_with_its_own_image(
    source: dict[str, Any], replicas: int, batch_size: int
) -> None:
    data = Batches(batch_size=batch_size, **source)
    epochs = batches(data.blocks(replicas, 3, epochs=2))
    assert len(epochs) == 2 * data.steps_per_epoch
    for epoch in (epochs[: data.steps_per_epoch], epochs[data.steps_per_epoch :]):
        assert sorted(real_ids(epoch)) == list(range(N))
    for batch in epochs:
        assert len(batch["id"]) % replicas == 0
        assert batch["weight"].sum() <= batch_size
        np.testing.assert_array_equal(batch["image"], ARRAYS["image"][batch["id"]])


@every_source
@pytest.mark.parametrize("replicas", [1, 3, 4])
def test_padding_has_weight_0_and_repeats_a_real_example(
    source: dict[str, Any], replicas: int
) -> None:
    data = Batches(batch_size=5, **source)
    rows = data.rows(replicas)
    assert rows == {1: 5, 3: 6, 4: 8}[replicas]
    *full, last = batches(data.blocks(replicas, epochs=1))
    for batch, examples in [*((batch, 5) for batch in full), (last, 3)]:
        assert batch["weight"].dtype == np.float32
        weight = [1.0] * examples + [0.0] * (rows - examples)
        assert batch["weight"].tolist() == weight
        assert set(batch["id"]) <= set(range(N))


@every_source
def test_blocks_end_with_their_epoch(source: dict[str, Any]) -> None:
    data = Batches(batch_size=4, **source)  # 6 batches an epoch
    steps = [len(block["id"]) for block in data.blocks(1, 4, epochs=3)]
    assert steps == [4, 2] * 3
    steps = [len(block["id"]) for block in data.blocks(1, 100, epochs=2)]
    assert steps == [6, 6]
    steps = [len(block["id"]) for block in data.blocks(1, 4, start_step=3, epochs=2)]
    assert steps == [3, 4, 2]


@every_source
def test_starting_at_any_step_gives_the_batches_of_coming_from_step_0(
    source: dict[str, Any],
) -> None:
    data = Batches(batch_size=5, **source)  # 5 batches an epoch
    whole = batches(data.blocks(2, 3, epochs=3))
    for start, steps_per_loop in [(1, 1), (4, 2), (5, 3), (8, 100), (12, 2), (14, 3)]:
        rest = data.blocks(2, steps_per_loop, start_step=start, epochs=3)
        assert_same(batches(rest), whole[start:])


@every_source
def test_batches_do_not_depend_on_the_steps_of_a_loop(source: dict[str, Any]) -> None:
    data = Batches(batch_size=5, **source)
    by_one = batches(data.blocks(1, 1, epochs=2))
    assert_same(batches(data.blocks(1, 4, epochs=2)), by_one)


@every_source
def test_real_rows_of_a_batch_do_not_depend_on_the_replicas(
    source: dict[str, Any],
) -> None:
    data = Batches(batch_size=5, **source)
    alone = [real_ids([batch]) for batch in batches(data.blocks(1, epochs=2))]
    for replicas in (2, 3, 4):
        shared = batches(data.blocks(replicas, epochs=2))
        assert [real_ids([batch]) for batch in shared] == alone


@every_source
def test_iterating_again_gives_the_same_batches(source: dict[str, Any]) -> None:
    data = Batches(batch_size=5, **source)
    first = batches(data.blocks(1, epochs=2))
    assert_same(batches(data.blocks(1, epochs=2)), first)


@every_source
def test_a_run_that_is_complete_has_no_batches_left(source: dict[str, Any]) -> None:
    data = Batches(batch_size=5, **source)
    assert list(data.blocks(start_step=10, epochs=2)) == []
    assert list(data.blocks(start_step=13, epochs=2)) == []
    assert list(data.blocks(epochs=0)) == []


@pytest.mark.parametrize(
    "name",
    list(SOURCES),
)
def test_without_a_number_of_epochs_batches_go_on(name: str) -> None:
    data = Batches(batch_size=5, **SOURCES[name])
    first = itertools.islice(data.blocks(1, 100), 3)
    assert_same(batches(first), batches(data.blocks(1, 100, epochs=3)))


def order(seed: int | None, epoch: int) -> list[int]:
    """The order of the examples in an epoch."""
    data = Batches(ARRAYS, 5, seed=seed)
    start = epoch * data.steps_per_epoch
    return real_ids(batches(data.blocks(start_step=start, epochs=epoch + 1)))


def test_order_differs_between_epochs_and_between_seeds() -> None:
    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(o) for o in orders.values()}) == 4
    assert all(sorted(o) == list(range(N)) for o in orders.values())


def test_order_is_a_function_of_seed_and_epoch_whatever_the_global_seed() -> None:
    tf.random.set_seed(1)
    first = order(3, 2)
    tf.random.set_seed(2)
    assert order(3, 2) == first


def test_order_is_that_of_the_arrays_without_a_seed() -> None:
    assert order(None, 0) == order(None, 1) == list(range(N))


def test_a_dataset_gives_the_batches_of_the_same_arrays() -> None:
    for replicas in (1, 4):
        streamed = batches(Batches(stream(), 5).blocks(replicas, 3, epochs=2))
        resident = batches(Batches(ARRAYS, 5).blocks(replicas, 3, epochs=2))
        assert_same(
            [{k: v[b["weight"] > 0] for k, v in b.items()} for b in streamed],
            [{k: v[b["weight"] > 0] for k, v in b.items()} for b in resident],
        )


def test_a_function_is_asked_for_the_dataset_of_each_epoch() -> None:
    data = Batches(shuffled_stream, 5)
    ids = real_ids(batches(data.blocks(epochs=2)))
    assert ids == [
        int(i) for e in (0, 1) for i in np.random.default_rng(e).permutation(N)
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_weights_of_the_user_are_kept_and_padding_still_weighs_0(
    streamed: bool,
) -> None:
    arrays = {
        "id": np.arange(5),
        "weight": np.array([0.5, 2, 0, 1, 3], np.float32),
    }
    source = tf.data.Dataset.from_tensor_slices(arrays) if streamed else arrays
    data = Batches(source, 3)
    (block,) = data.blocks(replicas=2, epochs=1)
    np.testing.assert_array_equal(block["weight"], [[0.5, 2, 0, 0], [1, 3, 0, 0]])
    np.testing.assert_array_equal(block["id"][:, :2], [[0, 1], [3, 4]])
    assert data.spec(2)["weight"].dtype == block["weight"].dtype == tf.float32


@every_source
@pytest.mark.parametrize("replicas", [1, 3])
def test_spec_tells_the_shape_and_dtype_of_blocks(
    source: dict[str, Any], replicas: int
) -> None:
    data = Batches(batch_size=5, **source)
    spec = data.spec(replicas)
    for block in data.blocks(replicas, 3, epochs=1):
        assert block.keys() == spec.keys()
        for name, values in block.items():
            assert spec[name].dtype == values.dtype
            assert spec[name].is_compatible_with(values)
            assert spec[name].shape[1:] == values.shape[1:]


@pytest.mark.parametrize(
    "empty", [{"x": np.zeros([0, 2])}, stream(0)], ids=["arrays", "dataset"]
)
def test_no_examples_are_refused(empty: Any) -> None:
    with pytest.raises(UsageError, match="at least one"):
        Batches(empty, 2)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_1_is_refused(batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"batch_size is {batch_size}: .*at least 1"):
        Batches(ARRAYS, batch_size)


@pytest.mark.parametrize("batch_size", [2**31, 10**20], ids="{:.0e}".format)
def test_a_batch_that_would_be_all_padding_is_refused(batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"batch_size is {batch_size}: .*at most {N}"):
        Batches(ARRAYS, batch_size)


def test_a_seed_beyond_64_bits_is_refused() -> None:
    assert order(2**63 - 1, 0) != order(-(2**63), 0)
    with pytest.raises(UsageError, match=f"seed is {2**63}"):
        Batches(ARRAYS, 5, seed=2**63)


@every_source
def test_a_bound_in_bytes_makes_blocks_smaller_and_changes_no_batch(
    source: dict[str, Any],
) -> None:
    data = Batches(batch_size=5, **source)
    whole = batches(data.blocks(2, epochs=2))
    row = ARRAYS["id"][0].nbytes + ARRAYS["image"][0].nbytes
    for max_bytes, steps in [(1, 1), (6 * row, 1), (12 * row, 2), (19 * row, 3)]:
        blocks = list(data.blocks(2, epochs=2, max_bytes=max_bytes))
        assert max(len(block["id"]) for block in blocks) == steps
        assert_same(batches(blocks), whole)


def test_a_block_has_at_most_64_mib_by_default() -> None:
    data = Batches({"x": np.zeros([640, 64, 64, 3], np.float32)}, 64)
    sizes = [block["x"].numpy().nbytes for block in data.blocks(epochs=11)]
    assert max(sizes) == 10 * 64 * 64 * 64 * 3 * 4  # an epoch, of 30 MiB
    large = Batches({"x": np.zeros([6400, 64, 64], np.float32)}, 64)
    sizes = [block["x"].numpy().nbytes for block in large.blocks(epochs=1)]
    assert max(sizes) == 64 * 2**20


PEAK = """
import resource
import tensorflow as tf
from lenet_tf.data.batches import Batches
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
images = tf.data.Dataset.range(6400).map(lambda i: {"x": tf.zeros([64, 64, 3])})
data = Batches(images, 64)
next(data.blocks(1, 1))
before = peak()
for block in data.blocks(1, 100, epochs=2):
    pass
print(peak() - before)
"""


def test_large_examples_do_not_fill_the_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450  # MiB; 300 MiB a block made it 600 and more


def test_only_the_last_start_is_kept() -> None:
    data = Batches(ARRAYS, 5, seed=0)

    def datasets() -> int:
        gc.collect()
        return sum(isinstance(o, tf.data.Dataset) for o in gc.get_objects())

    next(data.blocks(epochs=20))
    before = datasets()
    for start in range(8):
        next(data.blocks(start_step=start, epochs=20))
    assert datasets() <= before


def test_identity_tells_the_examples_their_order_and_their_content() -> None:
    identity = Batches(ARRAYS, 5, seed=7).identity()
    assert identity == Batches(dict(reversed(ARRAYS.items())), 5, seed=7).identity()
    assert {k: v for k, v in identity.items() if k != "checksum"} == {
        "examples": N,
        "batch_size": 5,
        "seed": 7,
    }
    assert json.loads(json.dumps(identity)) == identity
    changed = ARRAYS["image"].copy()
    changed[-1, -1, -1] += 1
    others = [
        {**ARRAYS, "image": changed},
        {**ARRAYS, "id": ARRAYS["id"].astype(np.int32)},
        {**ARRAYS, "image": ARRAYS["image"].reshape(N, 6)},
        {"id": ARRAYS["id"], "picture": ARRAYS["image"]},
    ]
    sums = {Batches(arrays, 5).identity()["checksum"] for arrays in [ARRAYS, *others]}
    assert len(sums) == 5


def test_identity_of_a_dataset_tells_its_elements_shapes_but_not_their_content() -> (
    None
):
    identity = Batches(stream(), 5).identity()
    assert identity == Batches(shuffled_stream, 5).identity()
    assert identity["examples"] == N and identity["seed"] is None
    other = stream().map(lambda e: {**e, "id": tf.cast(e["id"], tf.int32)})
    assert identity["checksum"] != Batches(other, 5).identity()["checksum"]


def test_identity_of_strings_depends_on_where_they_end() -> None:
    sums = {
        Batches({"x": np.array(x)}, 2).identity()["checksum"]
        for x in (["ab", "c"], ["a", "bc"], ["ab", "d"])
    }
    assert len(sums) == 3
