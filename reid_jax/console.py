"""How the programs speak: lines of progress, and one clear line for what went wrong."""

import contextlib
import functools
import sys
from collections.abc import Iterator

say = functools.partial(print, flush=True)


def clock(seconds: float) -> str:
    """A duration as `0:02:35`."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


@contextlib.contextmanager
def clear_errors(traceback: bool) -> Iterator[None]:
    """Ends the program with the message alone where settings, files or numbers are bad.

    Args:
        traceback: let the error through with its traceback instead.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if traceback:
            raise
        sys.exit(f"{type(error).__name__}: {error}\n(--traceback shows where)")
