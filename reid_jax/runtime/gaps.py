"""Fills the gaps that a compilation leaves in glibc's heap, so that allocations stay fast.

A compiler allocates and frees millions of small blocks. Between those that stay, tens of thousands
of free ones remain, all of different sizes. glibc keeps free blocks of 1 KiB and more in lists
sorted by size. It walks through a list whenever a program wants such a block or gives one back,
and other threads wait for the heap meanwhile. A training step does so thousands of times. Once the
gaps are filled, the lists are short.
"""

import ctypes
import re
from collections.abc import Iterator

import jax

# Smaller free blocks need no sorting: each of their lists has one size. Larger ones serve arrays.
_SMALLEST, _LARGEST = 1024, 2**20

# A block may leave a part of its gap, which is a smaller gap.
_PASSES = 3

# JAX's events. If they take less time, the program is small and leaves few gaps.
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_LOWERING_SECONDS = 0.03
_COMPILED = "/jax/core/compile/backend_compile_duration"
_COMPILATION_SECONDS = 0.5

_SIZES = re.compile(rb'<size from="(\d+)" to="(\d+)" total="\d+" count="(\d+)"/>')


class Gaps:
    """The gaps of glibc's first heap.

    Attributes:
        blocks: addresses of the blocks that fill them.
    """

    def __init__(self) -> None:
        """Find glibc, of which the process must have one heap for all threads."""
        self.blocks: list[int] = []
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.malloc.restype = ctypes.c_void_p
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._libc.open_memstream.restype = ctypes.c_void_p
        self._libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
        self._libc.fclose.argtypes = [ctypes.c_void_p]

    def fill(self) -> None:
        """Allocate the free blocks that glibc keeps in sorted lists."""
        for _ in range(_PASSES):
            # Begin with the largest: what they leave is filled with smaller blocks.
            for smallest, largest, count in reversed(list(self.lists())):
                if smallest >= _SMALLEST and largest < _LARGEST:
                    # 16 divides the size of a block, and its first 8 bytes are glibc's. The last
                    # bit of a reported size is a flag.
                    size = (smallest & ~15) - 8
                    self.blocks += [self._libc.malloc(size) for _ in range(count)]

    def free(self) -> None:
        """Give the blocks back."""
        blocks, self.blocks = self.blocks, []
        for block in blocks:
            self._libc.free(block)

    def lists(self) -> Iterator[tuple[int, int, int]]:
        """Smallest size in bytes, largest size and number of blocks of each list of free blocks."""
        # Freed blocks wait until an allocation that they do not fit, which sorts 10,000 of them.
        self._libc.free(self._libc.malloc(_LARGEST))
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        stream = self._libc.open_memstream(ctypes.byref(text), ctypes.byref(length))
        self._libc.malloc_info(0, stream)
        self._libc.fclose(stream)
        first, _, _ = ctypes.string_at(text, length.value).partition(b"</heap>")
        self._libc.free(text)
        for smallest, largest, count in _SIZES.findall(first):
            yield int(smallest), int(largest), int(count)


def fill_gaps_after_compilations() -> None:
    """From now on, keep the gaps of the heap filled, except while JAX compiles a large program."""
    gaps = Gaps()
    compiling = False

    def listen(event: str, duration_secs: float, **_) -> None:
        nonlocal compiling
        if event == _LOWERED and duration_secs >= _LOWERING_SECONDS:
            compiling = True
            gaps.free()  # for the compiler
        elif event == _COMPILED and (compiling or duration_secs >= _COMPILATION_SECONDS):
            compiling = False
            gaps.fill()

    jax.monitoring.register_event_duration_secs_listener(listen)
