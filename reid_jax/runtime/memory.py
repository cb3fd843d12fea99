"""The memory of this machine."""

import os


def check_holds(size: int, what: str, leaves: str) -> None:
    """Check that this machine has memory for an amount of data, if the system reports its memory.

    Args:
        size: bytes.
        what: the data, in the plural, for the error.
        leaves: the leaves of the recipe that determine the size.

    Raises:
        MemoryError: the data are larger than the whole memory. The message names what to lower.
    """
    if not hasattr(os, "sysconf"):  # Windows.
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise MemoryError(
            f"{what} take {size / 2**30:,.1f} GiB, but this machine has {memory / 2**30:,.1f} GiB "
            f"of memory: lower {leaves}"
        )
