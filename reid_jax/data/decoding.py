"""Image files, checked and decoded to upright RGB, in bounded memory and from any origin."""

import concurrent.futures
import contextlib
import io
import itertools
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from reid_jax.runtime import hosts
from reid_jax.runtime.messages import counted, shown
from reid_jax.runtime.progress import Progress, Tracker

#: Larger files and images are bad, and are not decoded.
MAX_BYTES = 2**28
MAX_SIDE = 8192

# Images and files above these sizes are in memory one at a time, whatever the number of threads.
LARGE_PIXELS = 2**22
_LARGE_BYTES = 2**24
_large = threading.RLock()

#: The formats that are decoded, by Pillow's names, and the suffixes of such files. A file may have
#: the suffix of another format. Other decoders are not used, because files may be of unknown
#: origin: the decoder of EPS, for example, runs a program.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
#: The suffixes of images, in lower case: files with other suffixes are not part of a dataset.
SUFFIXES = tuple(itertools.chain.from_iterable(FORMATS.values()))

# EXIF's orientation, and the operation that turns such an image upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# TIFF's tags of the bits for a colour, and of what colours mean: 0 stands for "white is zero".
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262

# Seconds between two lines of progress.
_PROGRESS_PERIOD = 2.0

# Files passed to the threads at a time: a queue of 500,000 would take 0.8 GiB.
_BLOCK = 4096


def visit(
    paths: Sequence[str],
    use: Callable[[int, bytes, Image.Image], None],
    progress: Progress = None,
    team: hosts.Team = hosts.ALONE,
) -> list[tuple[int, str]]:
    """Read and decode every file, in parallel.

    Args:
        paths: N files.
        use: called with (i, bytes of file i, its upright RGB image), from several threads, in any
            order. A file for which it raises counts as bad. i counts from the first file of this
            host's part.
        progress: as in `loaders.open_images`, of this host's part.
        team: the hosts that read the files.

    Returns:
        For each bad file among all N, in order, its index and its problem.
    """
    own = team.part(len(paths))
    problems = _visit(paths[own], use, progress)
    found = team.values([(own.start + i, problem) for i, problem in problems])
    return [(i, problem) for i, problem in found]


def _visit(
    paths: Sequence[str], use: Callable[[int, bytes, Image.Image], None], progress: Progress
) -> list[tuple[int, str]]:
    """Run `visit` on this host."""
    _hush()

    def job(i: int) -> str | None:
        try:
            with decoded(paths[i]) as (data, image):
                use(i, data, image)
        except Exception as error:
            return reason(error)
        return None

    bad = []
    every = range(len(paths))
    blocks = (every[start : start + _BLOCK] for start in every[::_BLOCK])
    with (
        Tracker(progress, len(paths), "read", show=(), period=_PROGRESS_PERIOD, ends=True) as read,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        problems = itertools.chain.from_iterable(pool.map(job, block) for block in blocks)
        for i, problem in enumerate(problems):
            if problem:
                bad.append((i, problem))
            read.update(i + 1)
    return bad


class BadFilesError(ValueError):
    """Files that are missing, damaged or no images; the message names the first few."""


def raise_problems(paths: Sequence[str], problems: Sequence[tuple[int, str]]) -> None:
    """Raise one BadFilesError for all problems that `visit` found in these paths, if any."""
    if problems:
        raise BadFilesError(
            f"{len(problems):,} of {counted(len(paths), 'file')} cannot be read: "
            f"{first_few([(paths[i], problem) for i, problem in problems])}. Replace or delete them"
        )


def first_few(problems: Sequence[tuple[str, str]]) -> str:
    """The first paths with their problems, in one line."""
    named = [f"{shown(path)} ({problem})" for path, problem in problems[:3]]
    return "; ".join(named) + ("; ..." if len(problems) > 3 else "")


def reason(error: Exception) -> str:
    """The message of an error that `decoded` raised, without the file's path; never empty."""
    if isinstance(error, OSError | ValueError) and str(error):
        return getattr(error, "strerror", None) or str(error)
    # Pillow also raises SyntaxError, struct.error, EOFError and others.
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def decoded(path: str) -> Iterator[tuple[bytes, Image.Image]]:
    """Open a file; yield its bytes and its upright RGB image.

    Memory is bounded for any file: sizes are checked before reading or decoding, and only one large
    image at a time is decoded in all threads together.

    Raises:
        Exception: the file cannot be read or is not an image; see `reason`.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for a program that writes into it.
        raise ValueError("is a folder, a pipe or a device, and no file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"has {status.st_size:,} bytes; the limit is {MAX_BYTES:,}")
    with contextlib.ExitStack() as stack:
        if status.st_size > _LARGE_BYTES:
            stack.enter_context(_large)
        with open(path, "rb") as file:
            data = file.read()
        image = _header(data)
        if image.width * image.height > LARGE_PIXELS:
            stack.enter_context(_large)
        image.load()  # Here, because reading metadata reads the whole file too and ignores damage.
        yield data, to_rgb(image)


def _header(data: bytes) -> Image.Image:
    """The image in the bytes, without decoding its pixels."""
    if not data:
        raise ValueError("is empty")
    limit = f"pixels; the limit is {MAX_SIDE:,} a side"
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    except UnidentifiedImageError:
        raise ValueError("is no JPEG, PNG, GIF, BMP, WebP or TIFF") from None
    except Image.DecompressionBombError:  # Pillow's own limit is a multiple of ours.
        raise ValueError(f"has too many {limit}") from None
    if max(image.size) > MAX_SIDE:
        raise ValueError(f"is {image.width}x{image.height} {limit}")
    return image


def _hush() -> None:
    """Silence Pillow's warnings about files that it reads nevertheless.

    Filters belong to the process, not to a thread, so this one stays; Python stores it only once.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the image to RGB and turn it upright.

    Raises:
        ValueError: it has 32 bits or signed numbers for a colour.
    """
    image.load()  # Pillow turns a TIFF here, and removes the tag.
    # Some of its versions read the 16 bits of a PNG into 32.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(
            "has 32 bits or signed numbers for a colour; the limit is 16 unsigned bits"
        )
    tags = getattr(image, "tag_v2", {})  # Only of an open TIFF.
    image = _upright(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image, tags)
    if "transparency" in image.info:
        # A palette's alpha would be matched to colours; RGBA makes it a channel, which RGB drops.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Grey levels of 12 or 16 bits, which Pillow would clip at 255, with their upper 8 bits."""
    bits = 12 if tags.get(_BITS_PER_SAMPLE) == (12,) else 16
    levels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    # Pillow inverts only 8 bits.
    return Image.fromarray(255 - levels if tags.get(_PHOTOMETRIC) == 0 else levels)


def _upright(image: Image.Image) -> Image.Image:
    # `ImageOps.exif_transpose` would rewrite the EXIF data, and fail if they are damaged.
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Unreadable metadata do not turn the image, and harm no pixel.
        turn = None
    return image if turn is None else image.transpose(turn)


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
    # One axis per call, because the order of both in one call differs between Pillow's versions.
    for shape in ((width, image.height), (width, height)):
        image = image.resize(shape, Image.Resampling.BILINEAR)
    return image
