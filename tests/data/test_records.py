"""Behaviour of TFRecord files read by index, seen through batches and training."""

from __future__ import annotations

import gc
import pathlib
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.data import Records
from lenet_tf.data.batches import Batches
from lenet_tf.data.random_access import RandomAccessSource
from lenet_tf.data.record_source import RecordSource
from lenet_tf.errors import DataError, UsageError

N = 83
IMAGES = np.random.default_rng(0).integers(0, 256, [N, 5, 4, 1], np.uint8)
LABELS = np.arange(N, dtype=np.int64)
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def serialized(i: int) -> bytes:
    """Example i as a tf.train.Example with a PNG."""
    image = tf.io.encode_png(IMAGES[i]).numpy()
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[LABELS[i]])),
    }
    return tf.train.Example(
        features=tf.train.Features(feature=feature)
    ).SerializeToString()


def write(path: pathlib.Path, records: Sequence[bytes]) -> str:
    """Writes a TFRecord file."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pattern of three files of unequal sizes, one of them empty."""
    folder = tmp_path_factory.mktemp("records")
    examples = [serialized(i) for i in range(N)]
    for i, (start, stop) in enumerate([(0, 50), (50, 50), (50, N)]):
        write(folder / f"images-{i}.tfrecord", examples[start:stop])
    return str(folder / "images-*.tfrecord")


def decode(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The example of a parsed record."""
    return {"image": tf.io.decode_png(parsed["image"], 1), "label": parsed["label"]}


class Counted(Records):
    """Records that remember which were read."""

    lock = threading.Lock()
    read: list[int]

    def serialized(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        with self.lock:
            self.read = [*getattr(self, "read", []), *map(int, index)]
        return super().serialized(index)


def assert_same(a: Batches, b: Batches, **settings: object) -> None:
    """Holds all blocks of two epochs to be equal, dtypes too."""
    pairs = zip(
        a.blocks(epochs=2, **settings), b.blocks(epochs=2, **settings), strict=True
    )
    for left, right in pairs:
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert values.dtype == right[name].dtype
            np.testing.assert_array_equal(values, right[name])


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("seed", [None, 5])
def test_batches_are_those_of_arrays(
    pattern: str, seed: int | None, replicas: int
) -> None:
    records = Batches(Records(pattern, FEATURES, decode), 9, seed=seed)
    arrays = Batches({"image": IMAGES, "label": LABELS}, 9, seed=seed)
    assert records.spec(replicas) == arrays.spec(replicas)
    assert_same(records, arrays, replicas=replicas, steps_per_loop=4, start_step=2)


def test_one_graph_gives_what_reading_one_by_one_gives(pattern: str) -> None:
    def transform(example: dict[str, tf.Tensor]) -> dict[str, object]:
        light = tf.cast(example["image"], tf.float32) / 255
        if light[0, 0, 0] > 0.5:  # AutoGraph makes a graph of it
            light = 1 - light
        label = example["label"]
        return {
            "light": light,
            "nested": {"label": label, "odd": label % 2 == 1},
            "one": 1,
            "name": tf.strings.as_string(label),
            "weight": tf.cast(label % 3, tf.float64),
        }

    records = Records(pattern, FEATURES, decode)
    fast = RecordSource(records, transform)
    plain = RandomAccessSource(records, transform)
    assert fast.spec == plain.spec
    assert fast.checksum == plain.checksum
    index = tf.constant([[4, 80, -1], [3, 3, 0]])
    for as_given in (False, True):
        a, b = fast.gather(index, as_given), plain.gather(index, as_given)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def test_records_of_another_kind(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a", [b"one", b"", b"three" * 999])
    assert [e["record"] for e in Records(path)] == [b"one", b"", b"three" * 999]
    blocks = list(Batches(Records(path), 2).blocks(epochs=1))
    names = [record for block in blocks for record in block["record"].numpy().flat]
    assert names == [b"one", b"", b"three" * 999, b"one"]  # the last is padding


def test_features_without_decoding(tmp_path: pathlib.Path) -> None:
    features = {"label": FEATURES["label"]}
    path = write(tmp_path / "a", [serialized(i) for i in range(5)])
    (block,) = Batches(Records(path, features), 5).blocks(epochs=1)
    np.testing.assert_array_equal(block["label"], [LABELS[:5]])


def test_each_of_four_workers_reads_its_quarter(pattern: str) -> None:
    read = []
    for worker in range(4):
        records = Counted(pattern, FEATURES, decode).part(0, 80)
        batches = Batches(records, 16, seed=1)
        records.read = []
        for _ in batches.blocks(4, 2, epochs=1, part=(worker, 4)):
            pass
        assert len(records.read) == 20
        read += records.read
    assert sorted(read) == list(range(80))


def test_a_resumed_run_reads_nothing_of_what_came_before(pattern: str) -> None:
    records = Counted(pattern, FEATURES, decode)
    batches = Batches(records, 4, seed=1)
    whole = [b["label"].numpy() for b in batches.blocks(1, 1, epochs=2)]
    del records.read[:]
    rest = [b["label"].numpy() for b in batches.blocks(1, 1, start_step=31, epochs=2)]
    np.testing.assert_array_equal(rest, whole[31:])
    # 11 batches of 4; the last of them has 3 rows, and one that repeats record 0
    assert len(records.read) == 44


def test_a_part_has_its_own_numbers(pattern: str) -> None:
    records = Records(pattern, FEATURES, decode)
    held_out = records.part(60, N)
    assert (len(records.part(0, 60)), len(held_out)) == (60, N - 60)
    assert int(held_out[2]["label"]) == 62


def test_training_is_that_on_arrays_bit_for_bit(pattern: str) -> None:
    def weights(data: object) -> np.ndarray:
        strategy = lenet_tf.make_strategy(2)
        with strategy.scope():
            model = lenet_tf.nn.Dense(20, 1, seed=(0, 1))

        def forward(model, batch, training):
            image = tf.reshape(tf.cast(batch["image"], tf.float32) / 255, [-1, 20])
            error = model(image)[:, 0] - tf.cast(batch["label"], tf.float32)
            return {"loss": error**2}

        trainer = lenet_tf.Trainer(
            model, lenet_tf.Adam(0.01), forward, strategy=strategy
        )
        trainer.fit(Batches(data, 8, seed=3), epochs=2)
        return model.w.numpy()

    resident = weights({"image": IMAGES, "label": LABELS})
    np.testing.assert_array_equal(weights(Records(pattern, FEATURES, decode)), resident)


def test_a_source_can_be_freed(pattern: str) -> None:
    source = RecordSource(Records(pattern, FEATURES, decode))
    source.gather(tf.constant([1, 2]))
    held = weakref.ref(source)
    del source
    gc.collect()
    assert held() is None


def damaged(path: str, place: int) -> None:
    data = bytearray(pathlib.Path(path).read_bytes())
    data[place] ^= 1
    pathlib.Path(path).write_bytes(data)


def test_a_damaged_record_is_named(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a", [b"0" * 100, b"1" * 100, b"2" * 100])
    damaged(path, 2 * 116 + 12 + 50)
    batches = Batches(Records(path), 3)
    line = f"^record 2 is damaged, at byte 244 of {path}: write the file again$"
    with pytest.raises(DataError, match=line):
        list(batches.blocks(epochs=1))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda path: damaged(path, 116), "is damaged or cut off at byte 128"),
        (lambda path: damaged(path, 0), "is not a TFRecord file, or is compressed"),
        (
            lambda path: pathlib.Path(path).write_bytes(
                pathlib.Path(path).read_bytes()[:-5]
            ),
            "is damaged or cut off at byte 244",
        ),
        (
            lambda path: pathlib.Path(path).write_bytes(
                pathlib.Path(path).read_bytes() + b"x"
            ),
            "is damaged or cut off at byte 348",
        ),
        (lambda path: pathlib.Path(path).unlink(), "no file matches"),
    ],
    ids=["length", "first", "cut", "longer", "missing"],
)
def test_a_spoiled_file_is_refused(tmp_path: pathlib.Path, spoil, line: str) -> None:
    path = write(tmp_path / "a", [b"0" * 100, b"1" * 100, b"2" * 100])
    spoil(path)
    with pytest.raises(DataError, match=line):
        Records(path)


def test_a_compressed_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        writer.write(b"1" * 100)
    with pytest.raises(DataError, match="or is compressed: give an uncompressed one"):
        Records(path)


def test_a_file_that_vanishes_is_named(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a", [b"0", b"1"])
    batches = Batches(Records(path), 2)
    pathlib.Path(path).unlink()
    with pytest.raises(DataError, match=f"^{path} cannot be read: No such file"):
        list(batches.blocks(epochs=1))


def test_a_record_that_cannot_be_decoded_is_named(tmp_path: pathlib.Path) -> None:
    other = tf.io.encode_png(np.zeros([7, 7, 1], np.uint8)).numpy()
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[other])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
    }
    large = tf.train.Example(features=tf.train.Features(feature=feature))
    for name, bad, line in [
        ("a", b"no example", "^example 3 cannot be read: .*pars"),
        ("b", large.SerializeToString(), r"^entry 'image' of example 3 is .*\(7, 7, 1"),
    ]:
        path = write(tmp_path / name, [*(serialized(i) for i in range(3)), bad])
        batches = Batches(Records(path, FEATURES, decode), 2)
        with pytest.raises(DataError, match=line):
            list(batches.blocks(epochs=1))


def test_a_negative_weight_is_named(pattern: str) -> None:
    def transform(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"weight": 40.0 - tf.cast(example["label"], tf.float32)}

    batches = Batches(Records(pattern, FEATURES, decode), 8, transform=transform)
    with pytest.raises(DataError, match="'weight' of example 41 is -1"):
        list(batches.blocks(epochs=1))


def test_what_is_no_graph_is_refused_at_once(pattern: str) -> None:
    def transform(example: dict[str, tf.Tensor]) -> dict[str, object]:
        return {"label": example["label"].numpy()}

    with pytest.raises(DataError, match="cannot be made into a graph, so use Tensor"):
        Batches(Records(pattern, FEATURES, decode), 8, transform=transform)


def test_what_cannot_be_files_or_features_is_refused(
    pattern: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(DataError, match=rf"is a folder: give .* {tmp_path}/\*"):
        Records(tmp_path)
    with pytest.raises(UsageError, match=r"sparse tensors: use tf\.io.RaggedFeature"):
        Records(pattern, {"label": tf.io.VarLenFeature(tf.int64)})
    with pytest.raises(UsageError, match="give a dict"):
        Records(pattern, ["label"])
    with pytest.raises(UsageError, match=r"'labels' is in none .* have image, label:"):
        Records(pattern, {"labels": tf.io.RaggedFeature(tf.int64)})
    with pytest.raises(
        UsageError, match=r"^part is 60 to 90: it must lie within 0 and"
    ):
        Records(pattern).part(60, 90)


def test_a_dataset_of_tfds_has_the_batches_of_its_arrays() -> None:
    splits = lenet_tf.load("mnist", validation_examples=2000)
    for split in ("validation", "test"):
        examples = getattr(splits, split)
        arrays = {"image": examples.image, "label": examples.label}
        records = splits.records(split)
        assert len(records) == len(examples)
        assert_same(Batches(records, 512, seed=0), Batches(arrays, 512, seed=0))
    assert len(splits.records("train")) == 58_000
    np.testing.assert_array_equal(
        splits.records("train")[57_999]["image"], splits.train.image[-1]
    )
    with pytest.raises(DataError, match="split is 'all': it must be 'train', 'val"):
        splits.records("all")
