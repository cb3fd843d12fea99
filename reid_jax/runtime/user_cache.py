"""The user's cache folder, whose content can be removed at any time."""

import os
import pathlib


def user_cache(name: str) -> pathlib.Path:
    """Make a folder of this package in the user's cache folder, which only the user may read.

    Args:
        name: of the folder below `reid_jax`.

    Returns:
        Its path, by the XDG base directory specification, which ignores relative paths.

    Raises:
        OSError: the folder cannot be made, or others may write to it.
        RuntimeError: the user has no home.
    """
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = base if base.is_absolute() else pathlib.Path.home() / ".cache"
    return private_folder(base / "reid_jax" / name)


def private_folder(folder: pathlib.Path) -> pathlib.Path:
    """Make a folder that only the user may read, and its parents; return it.

    Raises:
        PermissionError: others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionError(f"others may write to {folder}. Remove it, or take their rights")
    return folder


def used_bytes(folder: pathlib.Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget(folder: pathlib.Path, max_bytes: int) -> None:
    """Remove the least recently used files until at most `max_bytes` are left."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    # The system may record times of last use late, but they are never before creation.
    files.sort(key=lambda file: max(file[1].st_atime, file[1].st_mtime))
    excess = sum(stat.st_size for _, stat in files) - max_bytes
    for path, stat in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= stat.st_size
