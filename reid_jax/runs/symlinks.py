"""Links in a workdir that lead out of it: data written through them lands elsewhere."""

import os
import pathlib
from collections.abc import Iterator

from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime.messages import shown

#: Folders of a workdir in which programs write. Other files are in the workdir itself.
FOLDERS = (CHECKPOINTS, "tensorboard", "eval")


def check_symlinks(workdir: str | os.PathLike[str]) -> None:
    """Check that programs that write into a workdir write nowhere else.

    A workdir from others may hold anything, such as a `metrics.jsonl` that links to one of the
    user's files. The workdir itself may be a link, links may stay inside, and folders in which
    programs do not write may be links to anywhere.

    Args:
        workdir: folder of a run, which may not exist.

    Raises:
        ValueError: a link leads out of it. The message names the link.
    """
    inside = pathlib.Path(os.path.realpath(workdir))
    for path in _links(workdir):
        target = pathlib.Path(os.path.realpath(path))
        if not target.is_relative_to(inside):
            raise ValueError(
                f"{shown(path)} is a link to {shown(target)}, out of the workdir, so data written "
                "there would land outside. Remove the link, or choose another --workdir, "
                "which may itself be a link"
            )


def _links(workdir: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of the links through which programs might write."""
    for entry in _entries(workdir):
        if entry.is_symlink():
            if entry.name in FOLDERS or not entry.is_dir():
                yield entry.path
        elif entry.name in FOLDERS:
            yield from _links_below(entry.path)


def _links_below(folder: str) -> Iterator[str]:
    for entry in _entries(folder):
        if entry.is_symlink():
            yield entry.path
        elif entry.is_dir():
            yield from _links_below(entry.path)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):  # A run may delete old checkpoints.
        return []
