"""Imports of libraries that would import more than is of use here."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """A context in which a module is as good as not installed, unless it is imported already.

    with hidden("torch"):
        import tensorboardX
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's mark of a module not to import.
    try:
        yield
    finally:
        del sys.modules[name]
