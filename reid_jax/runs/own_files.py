"""JSON files that this package wrote, and may therefore replace or remove."""

import json
import pathlib

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
    if path.exists() and not is_own(path, *keys):
        raise FileExistsError(
            f"{shown(path)} is a file of another program, which would be replaced: move it, or "
            "choose another folder"
        )
