"""The examples on text and on a folder of images run, on little data."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from programs import ROOT, Finished, run

from lenet_tf.data import Examples

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that the examples share can be imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run_example(name: str, *flags: str) -> Finished:
    finished = run(str(EXAMPLES / name), *flags)
    assert finished.status == 0, finished.stderr
    return finished


def test_char_lm_writes_text(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "letters.txt"
    text.write_text("Grüße aus Köln.\n" * 1000, "utf-8")
    flags = [f"--workdir={tmp_path / 'run'}", f"--text={text}", "--epochs=1"]
    stdout = run_example("char_lm.py", *flags).stdout
    assert "1-grams: " in stdout
    assert "val_bits" in stdout
    assert len(stdout.split("\ndef ")[1]) > 300
    assert (tmp_path / "run" / "best" / "best.json").exists()


def test_ngrams_predict_what_they_have_counted() -> None:
    from characters import cut, ngram_bits, read_text

    turns = np.frombuffer(b"ab" * 5000, np.uint8)
    assert ngram_bits(turns, turns, 1) == pytest.approx(1.0, abs=1e-3)
    assert ngram_bits(turns, turns, 2) == pytest.approx(0.0, abs=1e-3)
    # "c" was never seen, so it has what is left over: 2 of 10,002 of 1/256.
    rare = np.frombuffer(b"c", np.uint8)
    bits = -math.log2(2 / 256 / 10_002)
    assert ngram_bits(turns, rare, 1) == pytest.approx(bits, rel=1e-5)

    pieces = cut(np.arange(10, dtype=np.uint8), 3)
    np.testing.assert_array_equal(pieces, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])
    train, held_out = read_text(None, 1000)  # of Python's library
    assert (len(train), len(held_out)) == (900, 100)


def test_streamed_images_reads_files_and_resumes(
    tmp_path: pathlib.Path,
) -> None:
    flags = [f"--workdir={tmp_path}", "--examples=100"]
    run_example("streamed_images.py", *flags, "--epochs=1")
    assert len([*(tmp_path / "digits_100" / "train").glob("[0-9]/*.png")]) == 100
    # The second epoch reads the files that were written for the first one.
    options = [*flags, "--epochs=2", f"--images={tmp_path / 'digits_100'}"]
    finished = run_example("streamed_images.py", *options)
    assert "epoch 1/2" not in finished.stdout
    assert "val_accuracy" in finished.stdout
    assert "'examples': 20" in finished.stdout


def test_a_folder_of_images_has_what_was_written(tmp_path: pathlib.Path) -> None:
    from image_folder import SPLITS, list_splits, read_image, write_images

    image = np.random.default_rng(0).integers(0, 256, [10, 32, 32, 3], np.uint8)
    labels = {split: np.full(10, 5 + place) for place, split in enumerate(SPLITS)}
    labels["train"][::2] = 3  # so the classes 3, 5, 6, 7 are numbered 0 to 3
    for split, label in labels.items():
        write_images(tmp_path / split, image, label)
    splits = list_splits(tmp_path)
    for columns, written in zip(splits, labels.values(), strict=True):
        assert len(columns["path"]) == 10
        for path, label in zip(columns["path"], columns["label"], strict=True):
            row = read_image({"path": path, "label": label})
            place = int(pathlib.Path(path).stem)
            np.testing.assert_array_equal(row["image"], image[place])
            assert (3, 5, 6, 7)[row["label"]] == written[place]
    again = list_splits(tmp_path)
    assert [s["path"].tolist() for s in splits] == [s["path"].tolist() for s in again]
    assert splits[0]["path"].tolist() != sorted(splits[0]["path"])


def test_images_of_any_size_and_kind_are_read(tmp_path: pathlib.Path) -> None:
    from image_folder import list_splits, read_image

    grey = np.full([100, 60, 1], 77, np.uint8)
    for split, name in (("train", "a.png"), ("validation", "b.PNG"), ("test", "c.jpg")):
        encode = tf.io.encode_jpeg if name.endswith("jpg") else tf.io.encode_png
        folder = tmp_path / split / "grey"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(encode(grey).numpy())
        (folder / "notes.txt").touch()
    for columns in list_splits(tmp_path):
        (path,) = columns["path"]
        row = read_image({"path": path, "label": 0})
        np.testing.assert_array_equal(row["image"], np.full([32, 32, 3], 77))


def test_coloured_digits_depend_on_the_seed_alone(
    digits: dict[str, np.ndarray],
) -> None:
    from coloured_digits import draw_digits

    first, again, other = (
        draw_digits(Examples(**digits), 50, seed) for seed in (0, 0, 1)
    )
    assert first["image"].shape == (50, 32, 32, 3)
    assert first["image"].dtype == np.uint8
    np.testing.assert_array_equal(first["label"], digits["label"][:50])
    np.testing.assert_array_equal(first["image"], again["image"])
    assert (first["image"] != other["image"]).mean() > 0.9
