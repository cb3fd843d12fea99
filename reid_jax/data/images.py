"""Images of files, all checked first, then delivered in batches by one of three loaders."""

import concurrent.futures
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np
from PIL import Image, ImageOps

# Seconds between two lines of progress.
_PROGRESS_PERIOD = 2.0

# Files handed to the threads at a time: a queue of 500,000 would take 0.8 GiB.
_BLOCK = 4096


class Images(Protocol):
    """N images of one size."""

    def __len__(self) -> int:
        """N."""

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Delivers batches in the order asked for.

        Args:
            index_batches: (B,) int32 each, B the same in all. Read ahead, in another thread
                perhaps.

        Returns:
            An iterator over (B, H, W, 3) uint8 RGB, one for each batch of indices. Each has memory
            of its own that is not written to again: a transfer may read it later. The loader
            `device` alone gathers on the devices; see `on_device.DeviceImages.batches`.
        """


def open_images(
    paths: Sequence[str],
    size: tuple[int, int],
    loader: str = "tfdata",
    progress: Callable[[str], object] | None = None,
    devices: list[jax.Device] | None = None,
) -> Images:
    """Reads every file once, checks that it decodes, and makes a loader of the images.

    `tfdata` holds the files' bytes and decodes and resizes them with tf.data, in parallel, ahead of
    the one who asks; resizing is compiled where all files are of one size, and Pillow's where they
    are not. `memory` holds the resized pixels, N * H * W * 3 bytes, and needs no TensorFlow.
    `device` holds the same on every one of `devices`, and gathers batches there. All deliver the
    same pixels, bit for bit: they decode JPEG with the accurate integer transform, and resize as
    `resize` says, in integers.

    Any image that Pillow reads will do: grey, palette, CMYK and alpha become RGB (alpha is
    dropped), and the EXIF orientation is applied.

    Args:
        paths: N files.
        size: (H, W), pixels.
        loader: `tfdata`, `memory` or `device`.
        progress: called with a line of text every few seconds while files are read; None is
            silence.
        devices: those that train on the images. None, as for evaluation, is for images that the
            host delivers: `device` is then as `memory`.

    Returns:
        The images, in the order of the paths.

    Raises:
        ValueError: the loader is unknown, or some files are no images or are truncated; names the
          first few; or the loader is `device` and a device has too little memory.
        ImportError: the loader is `tfdata` and TensorFlow is not installed.
    """
    if loader == "tfdata":
        from reid_jax.data.tfdata import TfdataImages

        return TfdataImages(paths, size, progress)
    if loader == "device" and devices is not None:
        from reid_jax.data.on_device import DeviceImages

        return DeviceImages(paths, size, devices, progress)
    if loader in ("memory", "device"):
        from reid_jax.data.memory import MemoryImages

        return MemoryImages(paths, size, progress)
    raise ValueError(f"unknown loader {loader!r} (data.loader); known: tfdata, memory, device")


def visit(
    paths: Sequence[str],
    use: Callable[[int, bytes, Image.Image], None],
    progress: Callable[[str], object] | None = None,
) -> None:
    """Reads and decodes every file, in parallel.

    Args:
        paths: N files.
        use: called with (i, bytes of file i, its decoded image), from several threads, in any
            order.
        progress: as in `open_images`.

    Raises:
        ValueError: some files are no images, are truncated or cannot be read: how many, and what is
          wrong with the first few. Raised after all have been tried.
    """

    def job(i: int) -> str | None:
        try:
            with open(paths[i], "rb") as file:
                data = file.read()
            image = Image.open(io.BytesIO(data))
            image.load()
            use(i, data, image)
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others.
            return f"{paths[i]} ({type(error).__name__}: {error})"
        return None

    bad = []
    shown = time.monotonic()
    every = range(len(paths))
    blocks = (every[start : start + _BLOCK] for start in every[::_BLOCK])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = itertools.chain.from_iterable(pool.map(job, block) for block in blocks)
        for done, problem in enumerate(problems, start=1):
            if problem:
                bad.append(problem)
            now = time.monotonic()
            if progress and (done == len(paths) or now - shown > _PROGRESS_PERIOD):
                progress(f"read {done:,} of {len(paths):,} images")
                shown = now
    if bad:
        first = "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else "")
        raise ValueError(
            f"{len(bad):,} of {len(paths):,} files are no images or are damaged: {first}. "
            "Replace or delete them."
        )


def is_plain(image: Image.Image) -> bool:
    """Whether any decoder makes the same RGB of the file that this image was read from."""
    kinds = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB")}
    upright = image.getexif().get(0x0112, 1) == 1
    return (image.format, image.mode) in kinds and upright


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright, in RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grey levels, which Pillow would cut off at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        # A palette's alpha would be matched to colours; RGBA makes it a channel, which RGB drops.
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bilinear resizing of an RGB image with antialiasing, first along rows, then along columns.

    Output pixel i covers the input around (i + 1/2) s, s the input's extent over the output's.
    Weights are a triangle of half-width max(s, 1), normalised and rounded to multiples of 2^-22.
    Each pass sums in integers and rounds to 8 bits.

    Args:
        image: mode RGB.
        size: (H, W), pixels.

    Returns:
        The resized image.
    """
    height, width = size
    # One axis a call: in one call, which of them comes first differs between versions of Pillow.
    for shape in ((width, image.height), (width, height)):
        image = image.resize(shape, Image.Resampling.BILINEAR)
    return image
