"""Images that a caller passes as paths or as pixels."""

import re

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding
from reid_jax.data.image_like import as_images
from reid_jax.data.memory import MemoryImages
from reid_jax.data.streamed import StreamedImages

SIZE = (6, 4)


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (3, 9, 5, 3), dtype=np.uint8)


def all_of(images):
    (batch,) = images.batches([np.arange(len(images))])
    return batch


@pytest.mark.parametrize("form", [np.asarray, list, iter])
def test_pixels_are_resized_as_files_are(pixels, form, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    got = all_of(as_images(form(pixels), SIZE))
    assert got.shape == (3, *SIZE, 3)
    np.testing.assert_array_equal(got, all_of(as_images(paths, SIZE)))
    wanted = [np.asarray(decoding.resize(Image.fromarray(image), SIZE)) for image in pixels]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("form", [np.asarray, list])
def test_images_of_the_right_size_are_unchanged(pixels, form):
    images = as_images(form(pixels), (9, 5))
    batches = list(images.batches(np.array([[2, 0], [1, 1]])))
    np.testing.assert_array_equal(batches, pixels[[[2, 0], [1, 1]]])
    assert not any(np.shares_memory(batch, pixels) for batch in batches)


def test_sizes_may_differ_and_one_image_is_one(pixels, tmp_path):
    assert len(as_images([pixels[0], pixels[1, :5]], SIZE)) == 2
    assert len(as_images(pixels[0], SIZE)) == 1
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    for path in (tmp_path / "one.png", str(tmp_path / "one.png")):
        assert len(as_images(path, SIZE)) == 1


def test_many_files_are_not_held_in_memory(pixels, tmp_path, monkeypatch):
    path = tmp_path / "one.png"
    Image.fromarray(pixels[0]).save(path)
    assert isinstance(as_images([path] * 4, SIZE), MemoryImages)
    monkeypatch.setattr("reid_jax.data.image_like._HELD", 4 * 6 * 4 * 3 - 1)
    streamed = as_images([path] * 4, SIZE)
    assert isinstance(streamed, StreamedImages)
    np.testing.assert_array_equal(all_of(streamed)[0], all_of(as_images(pixels[:1], SIZE))[0])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 5, 3), np.float32),
        np.zeros((9, 5), np.uint8),
        np.zeros((9, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(pixels, image):
    message = re.escape(f"image 1 is {image.dtype} {image.shape}; it must be a path, an image")
    with pytest.raises(ValueError, match=message):
        as_images([pixels[0], image], SIZE)


def test_a_bad_image_among_several_is_named(pixels, tmp_path):
    good = Image.fromarray(pixels[0])
    good.resize((50, 90)).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "cut.png") as cut:
        for bad, problem in (
            (Image.new("F", (5, 9)), "has 32 bits or signed numbers for a colour; .*"),
            (cut, ".+"),
            ([[1, 2], [3]], ".+"),
        ):
            with pytest.raises(ValueError, match=rf"^image 1 cannot be read \({problem}\)$"):
                as_images([good, bad], SIZE)


@pytest.mark.parametrize(
    "array", [np.array("a.png"), np.array(None), np.zeros((9, 5), np.uint8), np.zeros((1,) * 5)]
)
def test_an_array_of_another_shape_is_one_bad_image(array):
    message = re.escape(f"image 0 is {array.dtype} {array.shape}; it must be a path, an image")
    with pytest.raises(ValueError, match=message):
        as_images(array, SIZE)


@pytest.mark.parametrize("images", [b"a.png", None, 3])
def test_other_types_are_named(images):
    message = f"images are of type {type(images).__name__}; they must be paths"
    with pytest.raises(ValueError, match=message):
        as_images(images, SIZE)


def test_paths_and_pixels_do_not_mix(pixels):
    with pytest.raises(ValueError, match="images are paths or pixels"):
        as_images(["a.png", pixels[0]], SIZE)
