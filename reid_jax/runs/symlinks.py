"""Links in a workdir that lead out of it: what is written through them lands elsewhere."""

import os
import pathlib
from collections.abc import Iterator

from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime.messages import shown

#: Folders of a workdir in which programs write. Beside them they write files.
FOLDERS = (CHECKPOINTS, "tensorboard", "eval")


def check_symlinks(workdir: str | os.PathLike[str]) -> None:
    """Makes sure that who writes into a workdir writes nowhere else.

    A workdir from others may hold anything: a `metrics.jsonl` that is a link to a file of the
    user's. The workdir itself may be a link, links may stay inside, and folders in which nothing is
    written may be links to anywhere.

    Args:
        workdir: folder of a run, which need not exist.

    Raises:
        ValueError: a link leads out of it; names it.
    """
    inside = pathlib.Path(os.path.realpath(workdir))
    for path in _links(workdir):
        target = pathlib.Path(os.path.realpath(path))
        if not target.is_relative_to(inside):
            raise ValueError(
                f"{shown(path)} is a link to {shown(target)}, out of the workdir, and what is "
                "written there would land outside. Remove the link, or choose another --workdir, "
                "which may itself be a link"
            )


def _links(workdir: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of the links through which something may be written."""
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
    except (FileNotFoundError, NotADirectoryError):  # Of a run that deletes its old checkpoints.
        return []
