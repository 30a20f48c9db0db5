"""Folders of images for the examples.

    write_images(folder / "train", images, labels)     # train/7/00000.png ...
    train, validation, test = list_splits(folder)      # {"path": [...], "label": [...]}
    Batches(train, batch_size=64, seed=0, transform=read_image)

The same folder always gives the same order.
"""

import pathlib

import numpy as np
import tensorflow as tf

SPLITS = ("train", "validation", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")
SIZE = 32  # height and width of the images that are read


def write_images(folder: pathlib.Path, image: np.ndarray, label: np.ndarray) -> None:
    """Writes images to PNG files.

    Args:
      folder: Folder to write to, which is made if it is missing.
      image: Images, uint8 [N, H, W, C].
      label: Class of each image, [N], which becomes the name of its folder.
    """
    for i, (pixels, name) in enumerate(zip(image, label, strict=True)):
        path = folder / str(name) / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())


def list_splits(folder: pathlib.Path) -> list[dict[str, np.ndarray]]:
    """Lists the images to train on, for validation, and to test, each in random order.

    Args:
      folder: Folder with a folder for each of `SPLITS`, which has one for each class.

    Returns:
      `path`, str [N], and `label`, int [N], of each split. The label is the place of
      the class among those of all splits, in the order of their names.
    """
    files = {split: sorted((folder / split).glob("*/*")) for split in SPLITS}
    classes = sorted({path.parent.name for paths in files.values() for path in paths})
    splits = []
    for paths in files.values():
        paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
        np.random.default_rng(0).shuffle(paths)
        label = np.array([classes.index(path.parent.name) for path in paths])
        splits.append({"path": np.array([*map(str, paths)]), "label": label})
    return splits


def read_image(row: dict) -> dict:
    """Reads an image of `list_splits`: `image`, uint8 [SIZE, SIZE, 3], and `label`."""
    data = tf.io.read_file(row["path"])
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image = tf.image.resize(image, [SIZE, SIZE], antialias=True)  # uint8 if it fits
    return {"image": tf.cast(tf.round(image), tf.uint8), "label": row["label"]}
