import os
import platform
import subprocess
import sys
import types

import pytest

from reid_jax.runtime import allocator, gaps

# Page faults of a thread that allocates, writes and frees 64 MB ten times, after a first time.
CHURN = """
import resource, threading
import numpy as np
from reid_jax.runtime.allocator import keep_freed_memory

{call}
faults = []

def churn():
    for _ in range(11):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        np.empty(2**26, np.uint8).fill(1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

thread = threading.Thread(target=churn)
thread.start()
thread.join()
print(faults[-1] - faults[1])
"""


def churn(call, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CHURN.format(call=call)],
        # Use small pages, of which there are many.
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept_on_cpus():
    without = churn("")
    kept = churn("assert keep_freed_memory() is True", JAX_PLATFORMS="cpu")
    elsewhere = churn("assert keep_freed_memory() is False", JAX_PLATFORMS="cuda")
    assert kept < 100
    assert without > 300  # ten times 32 pages if pages had 2 MB
    assert elsewhere == pytest.approx(without, rel=0.1)


@pytest.fixture
def settings(monkeypatch):
    """The settings passed to a glibc that ignores them; JAX must not look for its devices."""
    told = []
    library = types.SimpleNamespace(mallopt=lambda *setting: told.append(setting) or 1)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(gaps, "fill_gaps_after_compilations", lambda: told.append("gaps"))
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if any(map(allocator.importlib.util.find_spec, ("jax_plugins", "libtpu"))):
        monkeypatch.setattr(allocator.importlib.util, "find_spec", lambda name: None)
    return told


def test_without_plugins_there_are_only_cpus(settings):
    assert allocator.keep_freed_memory()
    assert len(settings) == 4
    assert settings[-1] == "gaps"


def test_gaps_may_stay(settings):
    assert allocator.keep_freed_memory(fill_gaps=False)
    assert len(settings) == 3


@pytest.mark.parametrize("platforms", ["cuda", "cuda,cpu", "cpu,cuda", "tpu"])
def test_accelerators_asked_for(platforms, settings, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert not allocator.keep_freed_memory()
    assert not settings


def test_plugins_by_entry_point(settings, monkeypatch):
    monkeypatch.setattr(
        allocator.importlib.metadata, "entry_points", lambda group: {"jax_plugins": ["cuda"]}[group]
    )
    assert not allocator.keep_freed_memory()
    assert not settings
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # for any installed plugins
    assert allocator.keep_freed_memory()


@pytest.mark.parametrize("module", ["jax_plugins/xla_cuda", "libtpu"])
def test_plugins_by_module(module, settings, monkeypatch, tmp_path):
    (tmp_path / module).mkdir(parents=True)
    (tmp_path / module / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not allocator.keep_freed_memory()
    assert not settings


def test_other_systems_and_libraries(settings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(allocator.ctypes, "CDLL", lambda name: types.SimpleNamespace())
        assert not allocator.keep_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
    assert not settings
