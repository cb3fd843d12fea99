import json
import os
import platform
import subprocess
import sys

import jax
import pytest

from reid_jax.runtime import gaps

ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu"}

# A heap as a compiler leaves it: free blocks of all sizes between blocks that stay. It prints how
# many free blocks are in sorted lists at the start, with gaps, with gaps filled, and free again.
GAPS = """
import ctypes, json, random
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.gaps import Gaps

assert keep_freed_memory()
gaps = Gaps()
malloc, free = gaps._libc.malloc, gaps._libc.free

def count():
    return sum(count for smallest, largest, count in gaps.lists() if 1024 <= smallest < 2**20)

counts = [count()]
draw = random.Random(0)
blocks, kept, large = [], [], malloc(2**24)
for _ in range(10_000):
    blocks.append(malloc(draw.randrange(1024, 2**16)))
    kept.append(malloc(1200))
free(large)
for block in blocks:
    free(block)
count(), count()  # They are sorted one part at a time.
counts.append(count())
gaps.fill()
counts.append(count())
filled = len(gaps.blocks)
large_remains = any(largest > 2**23 for _, largest, _ in gaps.lists())
gaps.free()
count(), count()
counts.append(count())
print(json.dumps([counts, filled, len(gaps.blocks), large_remains]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is glibc's")
def test_gaps_are_filled_and_freed():
    done = subprocess.run(
        [sys.executable, "-c", GAPS], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    (start, open_, filled, freed), blocks, left, large_remains = json.loads(done.stdout)
    assert start < 1000
    assert open_ > 9_000
    assert filled < open_ / 50
    assert blocks > open_ - start
    assert left == 0
    assert freed > 0.9 * open_
    assert large_remains, "blocks for arrays must not be taken"


@pytest.fixture
def told(monkeypatch):
    """Tell the listener of events; the calls of its `Gaps` are in `told.calls`."""
    calls, listeners = [], []

    class Recorded:
        def fill(self):
            calls.append("fill")

        def free(self):
            calls.append("free")

    monkeypatch.setattr(gaps, "Gaps", Recorded)
    monkeypatch.setattr(
        gaps.jax.monitoring, "register_event_duration_secs_listener", listeners.append
    )
    gaps.fill_gaps_after_compilations()
    (listener,) = listeners

    def tell(event, seconds):
        listener(f"/jax/core/compile/{event}_duration", seconds, fun_name="step")

    tell.calls = calls
    return tell


def test_large_programs_compile_with_open_gaps(told):
    told("jaxpr_trace", 3.0)
    assert not told.calls
    told("jaxpr_to_mlir_module", 1.0)
    assert told.calls == ["free"]
    told("backend_compile", 20.0)
    assert told.calls == ["free", "fill"]


def test_gaps_are_filled_after_a_program_is_loaded(told):
    told("jaxpr_to_mlir_module", 1.0)
    told("backend_compile", 0.1)
    assert told.calls == ["free", "fill"]


def test_small_programs_leave_gaps_as_they_are(told):
    told("jaxpr_to_mlir_module", 0.01)
    told("backend_compile", 0.05)
    assert not told.calls
    told("jaxpr_to_mlir_module", 0.02)
    told("backend_compile", 0.6)
    assert told.calls == ["fill"]


def test_jax_has_these_events():
    seen = set()

    def listen(event, seconds, **_):
        seen.add(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 17)(1.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert {gaps._LOWERED, gaps._COMPILED} <= seen
