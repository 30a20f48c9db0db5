"""Digits in pictures of any size and colours come out as MNIST's own images."""

from __future__ import annotations

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

import lenet_tf
from lenet_tf.pictures import (
    PictureError,
    find_digit,
    find_digits,
    fit_picture,
    picture_files,
    read_picture,
)


@pytest.fixture(scope="module")
def mnist_images() -> np.ndarray:
    """200 digits of MNIST, uint8 [N, 28, 28, 1]."""
    return lenet_tf.load("mnist").test.image[:200]


def large(image: np.ndarray, side: int = 168) -> Image.Image:
    """Returns a digit as a picture of another size, light on black."""
    small = Image.fromarray(image[..., 0])
    return small.resize((side, side), Image.Resampling.BICUBIC)


def painted(grey: Image.Image, ground: str, ink: str) -> np.ndarray:
    picture = Image.composite(
        Image.new("RGB", grey.size, ink), Image.new("RGB", grey.size, ground), grey
    )
    return np.asarray(picture)


def nearest(found: np.ndarray, images: np.ndarray) -> int:
    """Index of the image that is most like one, at the best shift of up to a pixel.

    Where the centre lies between two pixels, a digit may come out shifted by one.
    """
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    moved = np.stack([np.roll(found, shift, (0, 1)) for shift in shifts]) / 255
    apart = np.abs(moved[:, None] - images[None] / 255).mean(axis=(2, 3, 4))
    return int(apart.min(axis=0).argmin())


@pytest.mark.parametrize(
    ("ground", "ink"),
    [
        ("black", "white"),
        ("white", "black"),
        ("yellow", "navy"),
        ("#c01818", "#20a020"),
        ("#808080", "#b0b0b0"),
    ],
)
def test_a_digit_of_mnist_is_found_again_in_any_colours(
    mnist_images: np.ndarray, ground: str, ink: str
) -> None:
    same = 0
    for i, image in enumerate(mnist_images):
        found = find_digit(painted(large(image), ground, ink)).image
        assert found.shape == (28, 28, 1)
        assert found.dtype == np.uint8
        assert found.max() == 255
        same += nearest(found, mnist_images) == i
    assert same >= 198  # of 200; two may be alike


def test_where_it_stands_and_how_large_it_is_does_not_matter(
    mnist_images: np.ndarray,
) -> None:
    digit = large(mnist_images[0], 400)
    for side, place in ((100, (0, 0)), (300, (500, 40)), (60, (240, 700))):
        canvas = Image.new("L", (900, 800))
        canvas.paste(digit.resize((side, side), Image.Resampling.BICUBIC), place)
        found = find_digit(painted(canvas, "white", "black"))
        assert nearest(found.image, mnist_images) == 0
        left, top, right, bottom = found.box
        assert place[0] / 900 - 0.01 <= left < right <= (place[0] + side) / 900 + 0.01
        assert place[1] / 800 - 0.01 <= top < bottom <= (place[1] + side) / 800 + 0.01


def test_it_is_centred_by_mass_in_a_box_of_20(mnist_images: np.ndarray) -> None:
    rows, columns = np.mgrid[:28, :28]
    for image in mnist_images[:50]:
        found = find_digit(painted(large(image), "white", "black")).image[..., 0]
        mass = found / found.sum()
        assert abs((mass * rows).sum() - 14) <= 0.6
        assert abs((mass * columns).sum() - 14) <= 0.6
        drawn = np.argwhere(found > 0)
        assert max(np.ptp(drawn, axis=0) + 1) == 20


def test_light_from_one_side_and_noise_do_no_harm(mnist_images: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    picture = painted(large(mnist_images[1]), "#e0e0d8", "#303060")
    shade = np.linspace(1, 0.5, 168)[None, :, None]
    photo = picture * shade + rng.normal(0, 3, picture.shape)
    photo = np.clip(photo, 0, 255).astype(np.uint8)
    assert nearest(find_digit(photo).image, mnist_images) == 1


def test_a_thin_line_becomes_as_wide_as_mnist_s() -> None:
    picture = np.full([400, 400, 3], 255, np.uint8)
    picture[50:350, 200:202] = 0
    found = find_digit(picture).image[..., 0]
    assert found.max() == 255
    width = (found > 100).sum(axis=1)
    assert np.median(width[width > 0]) in (2, 3)


def test_digits_in_lines_are_read_as_one_reads(mnist_images: np.ndarray) -> None:
    canvas = Image.new("L", (400, 260))
    for i in range(6):
        canvas.paste(
            large(mnist_images[i], 112), (10 + 125 * (i % 3), 8 + 125 * (i // 3))
        )
    found = find_digits(painted(canvas, "white", "black"))
    assert len(found) == 6
    assert [nearest(digit.image, mnist_images) for digit in found] == [*range(6)]


def test_the_bar_of_a_5_that_was_drawn_on_its_own_belongs_to_it() -> None:
    picture = np.zeros([200, 300, 3], np.uint8)
    picture[20:30, 60:120] = 255  # the bar
    picture[40:180, 60:70] = 255
    picture[40:180, 200:210] = 255  # a 1
    assert len(find_digits(picture)) == 2


@pytest.mark.parametrize("value", [0, 127, 255])
def test_an_empty_picture_is_told(value: int) -> None:
    with pytest.raises(PictureError, match="the picture is empty"):
        find_digit(np.full([50, 60, 3], value, np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_files_of_several_kinds_are_read(suffix: str, tmp_path: pathlib.Path) -> None:
    pixels = np.zeros([40, 30, 3], np.uint8)
    pixels[10:30, 10:20] = 255
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path)
    assert np.abs(read_picture(path).astype(int) - pixels).mean() < 6
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_picture(file), read_picture(path))


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0)])
def test_what_is_transparent_stands_out_from_the_ink(ink: int, ground: int) -> None:
    rgba = np.zeros([40, 40, 4], np.uint8)
    rgba[10:30, 15:25] = (ink, ink, ink, 255)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    picture = read_picture(file)
    assert (picture[0, 0] == ground).all()
    assert (picture[20, 20] == ink).all()


def test_16_bits_and_turned_photos_are_read_right(tmp_path: pathlib.Path) -> None:
    deep = np.zeros([20, 20], np.uint16)
    deep[5:15, 5:15] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png").max() == 255
    turned = Image.new("RGB", (40, 20), "white")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (40, 20, 3)


def test_bad_files_are_told_in_a_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 255, [99, 99, 3], np.uint8)
    Image.fromarray(noise).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:9000])
    for name, message in (
        ("text.png", "text.png is not a picture: give PNG"),
        ("cut.png", "cut.png cannot be read: .*truncated"),
        ("none.png", "none.png cannot be read: No such file"),
    ):
        with pytest.raises(PictureError, match=message) as error:
            read_picture(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_picture_that_is_too_large_is_refused(tmp_path: pathlib.Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "large.png")
    with pytest.raises(PictureError, match="10000x6000 pixels: at most 50,000,000"):
        read_picture(tmp_path / "large.png")


def test_folders_give_their_pictures_by_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.PNG", "a.jpg", "inner/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    names = [p.relative_to(tmp_path).as_posix() for p in picture_files(tmp_path)]
    assert names == ["a.jpg", "b.PNG", "inner/c.webp"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="empty has no pictures"):
        list(picture_files(tmp_path / "empty"))


def test_a_whole_picture_takes_a_dataset_s_shape() -> None:
    picture = np.zeros([64, 32, 3], np.uint8)
    picture[:32] = (255, 0, 0)
    color = fit_picture(picture, (8, 8, 3))
    assert color.shape == (8, 8, 3)
    assert (color[0, 0] == (255, 0, 0)).all()
    assert fit_picture(picture, (28, 28, 1)).shape == (28, 28, 1)
    with pytest.raises(PictureError, match="channels is 2"):
        fit_picture(picture, (8, 8, 2))
