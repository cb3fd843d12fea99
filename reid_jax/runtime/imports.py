"""Imports libraries without others that they would import and that are not needed here."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Within this context, importing the module fails, unless it is imported already.

    with hidden("torch"):
        import tensorboardX
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python then refuses to import it.
    try:
        yield
    finally:
        del sys.modules[name]
