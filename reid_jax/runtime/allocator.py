"""Keeps the memory of large arrays between steps, in programs that compute on CPUs.

XLA allocates a step's buffers, gigabytes, at its start and frees them at its end. glibc returns
blocks of that size to the kernel, which then clears every page of them again in the next step:
about a tenth of its time.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory(fill_gaps: bool = True) -> bool:
    """Make glibc keep freed memory for the next allocation, if JAX computes only on CPUs.

    Call it before JAX starts its threads, in programs and not in libraries, because the setting
    applies to the process. Memory stays at its highest level until the program ends. The call has
    no effect if JAX may compute on an accelerator, or with another C library.

    Args:
        fill_gaps: whether to fill the gaps that compilations leave in the heap, see `gaps`. It
            imports JAX. Processes that compile nothing do not need it.

    Returns:
        Whether the setting was changed.
    """
    if not _cpu_only() or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    # Allocate no block directly from the kernel, return none, and use one heap for all threads:
    # other threads' heaps are too small for large blocks.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    changed = all([mallopt(*setting) for setting in settings])
    if changed and fill_gaps:
        from reid_jax.runtime.gaps import fill_gaps_after_compilations

        fill_gaps_after_compilations()
    return changed


def _cpu_only() -> bool:
    """Whether JAX has only CPUs, found without starting JAX."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    # JAX finds plugins by entry points or in a package; TPUs need their library.
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
