"""Thumbnails: the best quality that fits."""

import io

import numpy as np
import pytest
from PIL import Image

from reid_jax.report import thumbnails
from reid_jax.report.thumbnails import LADDER, Rung


def decoded(file):
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def images(rng):
    """300 images of 128x64, the even ones noise; they return in another order."""
    coarse = rng.integers(0, 256, (5, 10, 5, 3), np.uint8)
    five = [
        np.asarray(Image.fromarray(c).resize((64, 128), Image.Resampling.BICUBIC)) for c in coarse
    ]
    noisy = np.stack(five) + rng.normal(scale=12, size=(5, 128, 64, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)[rng.integers(0, 5, 300)]


def test_shapes():
    assert thumbnails.shape((256, 128), 128) == (128, 64)
    assert thumbnails.shape((384, 128), 128) == (128, 64)  # Not narrower than 1:2.
    assert thumbnails.shape((64, 64), 128) == (64, 64)  # Not enlarged.
    assert thumbnails.shape((100, 200), 80) == (80, 160)


def test_a_thumbnail_is_the_image_made_smaller(images):
    files = thumbnails.encode(images[:9], Rung(48, 90))
    for file, image in zip(files, images[:9], strict=True):
        small = Image.fromarray(image).resize((24, 48), Image.Resampling.LANCZOS)
        assert np.abs(decoded(file).astype(int) - np.asarray(small)).mean() < 12


def test_the_best_that_fit_are_taken(images):
    def read(indices):
        assert len(indices) <= 256  # At most one batch of images is in memory.
        return images[indices]

    sizes = [sum(map(len, thumbnails.encode(images, rung))) for rung in LADDER]
    assert thumbnails.fitting(read, 300, 10**9) == thumbnails.encode(images, LADDER[0])
    for better, rung, size in zip(sizes[4:], LADDER[5:], sizes[5:], strict=False):
        assert size < better
        # A small margin is kept for the error of the estimate from a sample.
        files = thumbnails.fitting(read, 300, int(1.08 * size))
        assert files == thumbnails.encode(images, rung)
    assert thumbnails.fitting(read, 300, sizes[-1] - 1) is None


def test_a_sample_that_misleads_makes_no_page_too_large(images):
    sample = np.unique(np.linspace(0, 299, 128).astype(int))
    images[sample] = 128  # of one colour, so a few bytes each
    sizes = [sum(map(len, thumbnails.encode(images, rung))) for rung in LADDER]
    files = thumbnails.fitting(lambda indices: images[indices], 300, sizes[5])
    assert sum(map(len, files)) <= sizes[5]
    assert files == thumbnails.encode(images, LADDER[5])


def test_a_stream_is_in_order(images):
    files = list(thumbnails.stream(lambda indices: images[indices], 300, Rung(48, 60)))
    assert files == thumbnails.encode(images, Rung(48, 60))
