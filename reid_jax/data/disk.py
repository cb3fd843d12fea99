"""Images that are decoded once for all runs, into a memory-mapped file of the user's cache."""

import functools
import hashlib
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import PIL

from reid_jax.data import decoding
from reid_jax.runtime import hosts
from reid_jax.runtime.files import replacing
from reid_jax.runtime.messages import counted, shown
from reid_jax.runtime.progress import Progress
from reid_jax.runtime.user_cache import forget, user_cache

#: The size to which the folder is reduced before a file is added, in bytes.
MAX_BYTES = 2**36

# Part of a file's name: another form of the files gets another number.
_VERSION = 1


class DiskImages:
    """The loader `disk` of `loaders.open_images`.

    The first run decodes and resizes all files; later ones open what it wrote. A file of pixels
    serves as long as names, sizes and times of the images are the same, and Pillow's version is.
    The system holds in memory what fits.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB, memory-mapped.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Progress = None,
        *,
        team: hosts.Team = hosts.ALONE,
    ):
        """Decode what is not yet on disk; arguments and errors are those of `open_images`.

        Each host of a team has all images on its own disk.

        Raises:
            OSError: the cache cannot be written to, or has too little room.
        """
        shape = (len(paths), *size, 3)
        path = _folder() / f"{_digest(paths, size)}.uint8"
        there = path.is_file() and path.stat().st_size == math.prod(shape)
        problems = [] if there else _decode(paths, size, path, progress)
        problems = sorted({(i, problem) for i, problem in team.values(problems)})
        decoding.raise_problems(paths, problems)
        os.utime(path)  # `forget` removes what was not used for the longest time.
        self.pixels = np.memmap(path, np.uint8, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Gather batches, see `loaders.Images.batches`."""
        for indices in index_batches:
            yield np.asarray(self.pixels[indices])


def _folder() -> pathlib.Path:
    try:
        return user_cache("pixels")
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"data.loader is disk, but decoded images cannot be kept there: {error}. Name another "
            "folder by XDG_CACHE_HOME, or use data.loader=memory or tfdata"
        ) from error


def _digest(paths: Sequence[str], size: tuple[int, int]) -> str:
    """A name for the pixels of these files, computed without reading them."""
    digest = hashlib.sha256(repr((_VERSION, PIL.__version__, size)).encode())
    for path in paths:
        try:
            status = os.stat(path)
            facts = (status.st_size, status.st_mtime_ns)
        except OSError:  # Decoding reports unreadable files.
            facts = (-1, -1)
        digest.update(b"%b\0%d\0%d\0" % (os.fsencode(os.path.abspath(path)), *facts))
    return digest.hexdigest()


def _decode(
    paths: Sequence[str], size: tuple[int, int], path: pathlib.Path, progress: Progress
) -> list[tuple[int, str]]:
    """Write the pixels of all files to `path`, unless some are bad.

    Returns:
        The bad files, as `decoding.visit`.
    """
    row = math.prod((*size, 3))
    _make_room(path.parent, len(paths) * row, len(paths))

    def keep(file, i, data, image):
        # Not through a memory map: a full disk would then kill the process.
        os.pwrite(file.fileno(), np.asarray(decoding.resize(image, size)).tobytes(), i * row)

    try:
        with replacing(path, unique=True) as draft:
            with draft.open("wb") as file:
                os.truncate(file.fileno(), len(paths) * row)
                problems = decoding.visit(paths, functools.partial(keep, file), progress)
            if problems:
                raise _BadFiles
    except _BadFiles:
        return problems
    return []


class _BadFiles(Exception):
    """Removes the draft."""


def _make_room(folder: pathlib.Path, wanted: int, count: int) -> None:
    """Remove pixels that were not used for long; raise OSError if there is still no room."""
    forget(folder, max(0, MAX_BYTES - wanted))
    free = min(shutil.disk_usage(folder).free, MAX_BYTES)
    if wanted > free:
        raise OSError(
            f"data.loader is disk, but {counted(count, 'decoded image')} take "
            f"{wanted / 2**30:.1f} GiB, and {shown(folder)} has room for {free / 2**30:.1f} GiB: "
            "use data.loader=tfdata, or name another folder by XDG_CACHE_HOME"
        )
