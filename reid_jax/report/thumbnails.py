"""Thumbnails of images, so small that thousands of them fit into one file."""

import concurrent.futures
import io
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

# Images that are read and encoded at a time.
_BATCH = 256

# The number of images from whose sizes the total is estimated, and a margin for its error.
_SAMPLE = 128
_MARGIN = 1.05

# WebP's effort, from 0 to 6: more than 2 takes three times as long and saves 7 % of the bytes.
_EFFORT = 2

# Recipes stretch images to 384x128 and similar sizes, while boxes of people are nearer 2:1.
_NARROWEST = 0.5


class Rung(NamedTuple):
    """The size and quality of thumbnails: their height in pixels and WebP's quality, 0 to 100."""

    height: int
    quality: int


#: From the best to one that is just good enough to distinguish people.
LADDER = (
    Rung(256, 82),
    Rung(192, 80),
    Rung(160, 78),
    Rung(128, 75),
    Rung(128, 60),
    Rung(112, 55),
    Rung(96, 50),
    Rung(80, 45),
)

#: For thumbnails without a limit on their total size.
FREE = Rung(128, 75)

# From indices (n,) to images (n, H, W, 3) uint8.
Read = Callable[[np.ndarray], np.ndarray]


def shape(image_size: tuple[int, int], height: int) -> tuple[int, int]:
    """Height and width of thumbnails of images (H, W): not enlarged, and not narrower than 1:2."""
    height = min(height, image_size[0])
    return height, max(1, round(height * max(image_size[1] / image_size[0], _NARROWEST)))


def fitting(read: Read, count: int, size: int) -> list[bytes] | None:
    """Create the best thumbnails of `LADDER` that fit.

    Memory holds the result and a batch of images.

    Args:
        read: returns images, given their indices.
        count: N, the number of images.
        size: bytes that all N thumbnails may take together.

    Returns:
        N WebP files, or None if even the smallest do not fit.
    """
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    images = read(sample)
    for rung in LADDER:
        expected = np.mean([len(file) for file in encode(images, rung)]) * count
        if expected * _MARGIN <= size:
            files = list(stream(read, count, rung))
            if sum(map(len, files)) <= size:
                return files
    return None


def stream(read: Read, count: int, rung: Rung) -> Iterator[bytes]:
    """Yield the thumbnails of N images in order, with one batch of images in memory at a time."""
    for start in range(0, count, _BATCH):
        yield from encode(read(np.arange(start, min(start + _BATCH, count))), rung)


def encode(images: np.ndarray, rung: Rung) -> list[bytes]:
    """Encode images (n, H, W, 3) uint8 as WebP files."""
    height, width = shape(images.shape[1:3], rung.height)

    def one(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        image.save(file, "WEBP", quality=rung.quality, method=_EFFORT)
        return file.getvalue()

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, images))
