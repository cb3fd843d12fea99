"""Which files are images, by their suffixes, in a folder and in the folders below."""

import os
from collections.abc import Collection

from reid_jax.data.decoding import SUFFIXES
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import counted, shown, warn

# Files that operating systems leave in any folder, besides hidden ones.
_CLUTTER = ("thumbs.db", "desktop.ini")


def find_images(folder: str | os.PathLike, option: str, but: Collection[str] = ()) -> list[str]:
    """All images in a folder and in the folders below: files with a suffix of `SUFFIXES`, any case.

    Links to folders are followed, each folder once. Hidden files and folders are ignored, also
    `Thumbs.db` and `desktop.ini`. One warning counts all other files and names a few.

    Args:
        folder: to search.
        option: the option that names it, for errors.
        but: folders to leave out if they are below this one.

    Returns:
        Their paths, sorted.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there is no image, or `folder` is no local path.
    """
    folder = local_path(folder, option)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder!r} ({option})")
    paths, others = _listed(folder, but)
    if others:
        few = ", ".join(shown(path) for path in sorted(others)[:3])
        more = ", ..." if len(others) > 3 else ""
        warn(
            f"not used: {counted(len(others), 'file')} in {shown(folder)} without the suffix of an "
            f"image: {few}{more}; supported: {' '.join(SUFFIXES)}"
        )
    if not paths:
        raise ValueError(f"no image ({' '.join(SUFFIXES)}) in or below {folder!r} ({option})")
    return sorted(paths)


def is_found(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether `find_images` finds a file of this path in a folder, not counting links to folders.

    Args:
        path: of a file, which need not exist.
        folder: the folder.
    """
    parent, name = os.path.split(os.path.abspath(path))
    below = os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(folder))
    return below.lower().endswith(SUFFIXES) and not any(
        part.startswith(".") for part in below.split(os.sep)
    )


def _listed(folder: str, but: Collection[str]) -> tuple[list[str], list[str]]:
    """The paths of images in and below a folder, and those of other files."""
    paths: list[str] = []
    others: list[str] = []
    waiting, seen = [folder], {_place(path) for path in but} - {_place(folder)}
    while waiting:
        path = waiting.pop()
        if _place(path) in seen:  # A link leads back, or two to one place.
            continue
        seen.add(_place(path))
        folders = []
        with os.scandir(path) as entries:
            for entry in entries:
                # The leading dot also marks what macOS leaves beside each file: ._0002_c1s1.jpg
                if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                    continue
                if _is_folder(entry):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    paths.append(entry.path)
                else:
                    others.append(entry.path)
        waiting += sorted(folders, reverse=True)
    return paths, others


def _place(path: str) -> tuple[int, int] | None:
    """The device and inode of a folder, the same for all links to it; None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False
