"""Memory of large arrays, kept between the steps of a program that computes on CPUs.

XLA takes a step's buffers, gigabytes, from the C library at its start and frees them at its end.
glibc hands blocks of that size back to the kernel, which then clears every page of them again in
the next step: about a tenth of its time.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next allocation, where JAX computes on CPUs alone.

    To be called before JAX starts its threads, by programs and not by libraries: the setting is the
    process's. Memory stays at its highest level until the program ends. Where JAX may compute on an
    accelerator, or the C library is another one, nothing happens.

    Returns:
        Whether it is set.
    """
    if not _cpu_only() or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    # No block of its own from the kernel, none returned, and one heap for all threads: the heaps of
    # other threads are too small for large blocks.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return all([mallopt(*setting) for setting in settings])


def _cpu_only() -> bool:
    """Whether JAX has nothing but CPUs, told without starting it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    # Where JAX looks: plugins name themselves by an entry point or lie in a package; TPU's library.
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
