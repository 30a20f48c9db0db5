"""Distortions against a NumPy reference, and their keys."""

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import distortion as augment
from lenet_tf.nn.distortion import Distortion

RNG = np.random.default_rng(0)


def batch(size: int, seed: int = 1, step: int = 2) -> dict[str, tf.Tensor]:
    return {
        "position": tf.range(size),
        "seed": tf.constant([seed, step], tf.int64),
    }


def reference(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Reads an image [H, W, C] at places [P], bilinearly, 0 outside."""
    height, width, _ = image.shape
    result = np.zeros([len(x), image.shape[2]])
    for i, j in np.ndindex(2, 2):
        row, column = np.floor(y).astype(int) + i, np.floor(x).astype(int) + j
        share = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        result[inside] += share[inside, None] * image[row[inside], column[inside]]
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_sampling_is_bilinear_and_zero_outside(channels: int) -> None:
    images = RNG.random([3, 9, 12, channels], np.float32)
    where = RNG.uniform(-6, 18, [3, 2, 9 * 12]).astype(np.float32)
    result = augment._sample(tf.constant(images), tf.constant(where)).numpy()
    for image, (x, y), ours in zip(images, where, result, strict=True):
        expected = reference(image, x, y).reshape(ours.shape)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


def test_the_affine_map_alone_is_that_of_the_general_sampler() -> None:
    images = tf.constant(RNG.random([16, 28, 28, 1], np.float32))
    affine = {"shift": 2.0, "rotate": 15.0, "scale": 0.2, "shear": 10.0}
    plain = Distortion(**affine)(batch(16), images)
    # An elastic motion too small to be seen takes the other path.
    general = Distortion(**affine, elastic=1e-9)(batch(16), images)
    np.testing.assert_allclose(plain, general, rtol=0, atol=1e-4)
    assert np.abs(plain - images).max() > 0.3


def test_what_xla_can_compile_gives_the_same_images() -> None:
    images = tf.constant(RNG.random([16, 28, 28, 1], np.float32))
    affine = {"shift": 2.0, "rotate": 15.0, "scale": 0.2, "shear": 10.0}
    plain = Distortion(**affine)(batch(16), images)
    gathered = Distortion(**affine, xla=True)(batch(16), images)
    np.testing.assert_allclose(gathered, plain, rtol=0, atol=1e-4)


def test_a_shift_moves_and_a_rotation_turns_about_the_centre() -> None:
    spot = np.zeros([200, 27, 27, 1], np.float32)
    spot[:, 13, 13] = 1
    rows, columns = np.mgrid[:27, :27] - 13

    def centroids(distort: Distortion) -> tuple[np.ndarray, np.ndarray]:
        images = distort(batch(200), tf.constant(spot)).numpy()[..., 0]
        images /= images.sum(axis=(1, 2), keepdims=True)
        return tuple(np.sum(images * axis, axis=(1, 2)) for axis in (rows, columns))

    np.testing.assert_allclose(centroids(Distortion(rotate=90)), 0, atol=1e-3)
    y, x = centroids(Distortion(shift=3))
    assert np.abs(np.concatenate([x, y])).max() <= 3 + 1e-4
    assert np.std(x) == pytest.approx(3 / np.sqrt(3), rel=0.15)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.2


def test_splines_carry_a_common_motion_unchanged_and_keep_the_most() -> None:
    weights = augment._splines(28, 28).numpy()
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    assert weights.min() >= 0


def test_an_example_is_distorted_alike_in_any_share() -> None:
    images = tf.constant(RNG.random([10, 28, 28, 1], np.float32))
    distort = Distortion(shift=2, rotate=10, scale=0.1, shear=5, elastic=2)
    whole = distort(batch(10), images)
    share = {k: v[4:7] if k == "position" else v for k, v in batch(10).items()}
    # Sines of vectors of another length may differ in their last bit.
    np.testing.assert_allclose(distort(share, images[4:7]), whole[4:7], atol=1e-5)
    assert np.abs(distort(batch(10, step=3), images) - whole).max() > 0.1


def test_no_amount_leaves_images_as_they_are() -> None:
    images = tf.constant(RNG.random([2, 28, 28, 1], np.float32))
    np.testing.assert_array_equal(Distortion()(batch(2), images), images)


@pytest.mark.parametrize(
    ("amount", "value"),
    [
        ("shear", -1),
        ("shift", 1e38),
        ("rotate", 181),
        ("scale", 1e30),
        ("shear", 90),
        ("elastic", float("inf")),
        ("elastic", float("nan")),
    ],
)
def test_amounts_that_make_no_sense_are_refused(amount: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{amount} is .* from 0 to "):
        Distortion(**{amount: value})


@pytest.mark.parametrize("amount", ["shift", "elastic"])
def test_moving_by_more_than_half_of_the_image_is_refused(amount: str) -> None:
    images = tf.zeros([2, 20, 28, 1])
    Distortion(**{amount: 10})(batch(2), images)
    with pytest.raises(UsageError, match=f"{amount} is 11: .*20x28.* at most 10"):
        Distortion(**{amount: 11})(batch(2), images)
