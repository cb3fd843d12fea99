"""A folder that appears complete or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from reid_jax.console import shown


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A folder beside `path` to write into, which takes its name at the end.

    Where anything is raised meanwhile, it goes and `path` is as it was.

    Args:
        path: it does not exist, or is an empty folder. Its parents are made.

    Raises:
        OSError: `path` is a file or a folder with something in it, or cannot be written beside.
    """
    target = pathlib.Path(os.path.realpath(path))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(
                f"{shown(path)} exists and is no empty folder: choose another OUT"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except FileExistsError as error:
        if error.errno is None:
            raise
        raise FileExistsError(f"cannot make the folder {shown(path)}: {error.strerror}") from error
    except OSError as error:
        raise OSError(f"cannot make the folder {shown(path)}: {error.strerror}") from error
    draft = pathlib.Path(draft)
    try:
        draft.chmod(0o755)
        yield draft
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
