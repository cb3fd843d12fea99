"""Files that this package wrote, and may therefore replace or remove."""

import json
import pathlib
from collections.abc import Iterable

from reid_jax.runtime.messages import shown


def is_own(path: pathlib.Path, *keys: str) -> bool:
    """Whether a file is a JSON object with all these keys, as this package writes them."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= set(keys)


def check_own(path: pathlib.Path, *keys: str) -> None:
    """Check that a file may be replaced.

    Raises:
        FileExistsError: the path exists, and is no file of `is_own`.
    """
    if not is_own(path, *keys):
        check_absent([path])


def check_absent(paths: Iterable[pathlib.Path]) -> None:
    """Check that there are no files at paths that this package is about to write.

    Raises:
        FileExistsError: one of the paths exists.
    """
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"{shown(path)} is a file of another program, which would be replaced: move it, or "
                "choose another folder"
            )
