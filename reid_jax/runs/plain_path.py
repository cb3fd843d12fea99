"""A path that Orbax and TensorStore take, for a folder of any name."""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

# Letters of any language and what is common in names. Orbax expands `*`, `?` and `[...]` in the
# names of its own folders, takes `gs:` for a service, and TensorStore needs names in UTF-8.
_PLAIN = re.compile(r"[\w /.,+=@-]*")


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder itself, or a temporary link to it if its path has characters that Orbax misreads.

    Args:
        folder: an absolute path; the folder need not exist.

    Raises:
        OSError: the link cannot be made.
    """
    if _PLAIN.fullmatch(os.fspath(folder)):
        yield folder
        return
    # After a failed write, Orbax's threads may still create a folder there.
    with tempfile.TemporaryDirectory(prefix="reid_jax_", ignore_cleanup_errors=True) as place:
        link = pathlib.Path(place, "checkpoints")
        link.symlink_to(folder)
        yield link
