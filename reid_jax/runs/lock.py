"""The lock of a workdir, which one training at a time holds."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import IO

NAME = ".lock"


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of an existing folder. The system releases it if the process is killed.

    There are no locks on Windows and on some file systems.

    Raises:
        BlockingIOError: another program holds it, or another thread of this one.
    """
    with (pathlib.Path(workdir) / NAME).open("a") as file:
        try:
            _lock(file)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another program trains in {workdir}: wait until it has ended, or choose another "
                "--workdir"
            ) from error
        except OSError:
            pass
        yield


def _lock(file: IO) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
