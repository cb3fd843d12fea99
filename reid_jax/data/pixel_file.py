"""A memory-mapped file of decoded images in the user's cache, written by the first run."""

import contextlib
import errno
import functools
import hashlib
import math
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Sequence

import numpy as np
import PIL

from reid_jax.data import decoding
from reid_jax.runtime import hosts
from reid_jax.runtime.files import replacing
from reid_jax.runtime.messages import counted, shown
from reid_jax.runtime.progress import Progress
from reid_jax.runtime.user_cache import forget, used_bytes, user_cache

#: The size to which the folder is reduced before a file is added, in bytes.
MAX_BYTES = 2**36

# A draft that no process has written to for so many seconds is one that a kill left behind.
_ABANDONED = 3600.0

# Part of a file's name: another form of the files, or other pixels of an image, get another number.
_VERSION = 2


def open_pixels(
    paths: Sequence[str],
    size: tuple[int, int],
    progress: Progress = None,
    *,
    team: hosts.Team = hosts.ALONE,
    share: float = 1.0,
) -> np.memmap:
    """The pixels of all files, (N, H, W, 3) uint8 RGB, decoded and resized at most once.

    A file of pixels serves as long as names, sizes and times of the images are the same, and
    Pillow's version is. The system holds in memory what fits. Each host of a team has all images on
    its own disk. The array is read-only, so that it may be larger than the memory.

    Args:
        paths: N files.
        size: (H, W), pixels.
        progress: called with progress messages while files are read; None disables them.
        team: the hosts that open the same files.
        share: the largest share of the free disk space that a new file may take.

    Raises:
        BadFilesError: some files are bad, see `decoding.raise_problems`.
        OSError: the cache of a host cannot be written to, or has too little room. It is raised on
            all hosts.
    """
    failures, problems = [], []
    shape = (len(paths), *size, 3)
    try:
        path = _folder() / f"{_digest(paths, size)}.uint8"
        if not (path.is_file() and path.stat().st_size == math.prod(shape)):
            problems = _decode(paths, size, path, progress, share)
        if not problems:
            os.utime(path)  # `forget` removes what was not used for the longest time.
    except OSError as error:
        failures = [str(error)]
    for failure in team.values(failures):
        raise OSError(failure)
    decoding.raise_problems(paths, sorted({(i, text) for i, text in team.values(problems)}))
    # Linux maps no file larger than its memory and swap as a private copy that can be written to.
    return np.memmap(path, np.uint8, "r", shape=shape)


def _folder() -> pathlib.Path:
    try:
        return user_cache("pixels")
    except (OSError, RuntimeError) as error:
        raise OSError(f"decoded images cannot be kept in the user's cache ({error})") from error


def _digest(paths: Sequence[str], size: tuple[int, int]) -> str:
    """A name for the pixels of these files, computed without reading them."""
    digest = hashlib.sha256(repr((_VERSION, PIL.__version__, tuple(size))).encode())
    for path in paths:
        try:
            status = os.stat(path)
            facts = (status.st_size, status.st_mtime_ns)
        except OSError:  # Decoding reports unreadable files.
            facts = (-1, -1)
        digest.update(b"%b\0%d\0%d\0" % (os.fsencode(os.path.abspath(path)), *facts))
    return digest.hexdigest()


def _decode(
    paths: Sequence[str],
    size: tuple[int, int],
    path: pathlib.Path,
    progress: Progress,
    share: float,
) -> list[tuple[int, str]]:
    """Write the pixels of all files to `path`, unless some are bad.

    Returns:
        The bad files, as `decoding.visit`.
    """
    row = math.prod((*size, 3))
    _make_room(path.parent, len(paths) * row, len(paths), share)
    unwritten: list[OSError] = []
    one_at_a_time = threading.Lock()

    def keep(file, i, data, image):
        pixels = np.asarray(decoding.resize(image, size)).tobytes()
        try:
            # Not through a memory map: a full disk would then kill the process.
            with one_at_a_time:
                file.seek(i * row)
                if file.write(pixels) < row:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:  # Not a problem of the image.
            unwritten.append(error)

    try:
        with replacing(path, unique=True) as draft:
            with draft.open("wb", buffering=0) as file:
                file.truncate(len(paths) * row)
                problems = decoding.visit(paths, functools.partial(keep, file), progress)
            if problems:
                raise _BadFiles
            if unwritten:
                raise unwritten[0]
    except _BadFiles:
        return problems
    except OSError as error:
        where = shown(path.parent)
        raise OSError(f"decoded images cannot be written to {where} ({error.strerror})") from error
    return []


class _BadFiles(Exception):
    """Removes the draft."""


def _make_room(folder: pathlib.Path, wanted: int, count: int, share: float) -> None:
    """Remove drafts that a kill left, and pixels that were not used for long.

    Raises:
        OSError: there is still no room.
    """
    for draft in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):  # It was finished meanwhile.
            if time.time() - draft.stat().st_mtime > _ABANDONED:
                draft.unlink()
    least = max(0, MAX_BYTES - wanted)
    freed = max(0, used_bytes(folder) - least)
    room = min(share * (shutil.disk_usage(folder).free + freed), MAX_BYTES)
    if wanted > room:
        raise OSError(
            f"{counted(count, 'decoded image')} take {wanted / 2**30:.1f} GiB, and {shown(folder)} "
            f"has room for {room / 2**30:.1f} GiB"
        )
    forget(folder, least)
