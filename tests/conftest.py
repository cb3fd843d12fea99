"""Strict settings for every test: problems that pass silently elsewhere are errors here.

Four CPU devices, strict dtype promotion, rank promotion raises, warnings are errors (see
pyproject.toml). Code is generated without optimisation, because most of it runs once or twice.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
import uuid

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Workers, and programs that tests start, share all programs compiled in this session, also those
# that compile in less than JAX's limit of a second: most do.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="reid_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Decoded images of temporary folders would pile up in the user's cache. Workers share one, too.
if "reid_jax_tests_" not in os.environ.get("XDG_CACHE_HOME", ""):
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="reid_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A program started in the background ignores Ctrl-C, and so do the programs that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing makes millions of objects that live on. Searching them for garbage as often as Python does
# by default takes a tenth of the tests' time.
gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def rng():
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)


# Fixtures that stand for what the extra `test` does not install.
EXTRAS = frozenset(("milvus", "onnx_converter", "torch"))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
    """Give the marker `extras` to tests with one of these fixtures."""
    for item in items:
        if EXTRAS.intersection(item.fixturenames):
            item.add_marker("extras")


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="session")
def onnx_converter():
    for name in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(name, reason="the extra `export` is not installed")


@pytest.fixture(scope="session")
def milvus():
    """For tests of Milvus, which are skipped without it.

    Its import closes absl's log handler and with it, while a test captures, pytest's own stream. So
    import it before function-scoped fixtures.
    """
    for name in ("milvus_lite", "pymilvus"):
        pytest.importorskip(name, reason="the extra `milvus` is not installed")


@pytest.fixture(scope="module")
def database(milvus, tmp_path_factory):
    """The address of an empty Milvus database, for MilvusGallery.

    It is the path of an embedded one, or if REID_JAX_MILVUS is the address of a server, a new
    database of that server, which is dropped at the end.
    """
    server = os.environ.get("REID_JAX_MILVUS", "").rstrip("/")
    if not server:
        yield str(tmp_path_factory.mktemp("milvus") / "new" / "all.db")
        return
    from pymilvus import MilvusClient

    name = f"reid_jax_{uuid.uuid4().hex}"
    client = MilvusClient(server)
    client.create_database(name)
    yield f"{server}/{name}"
    inside = MilvusClient(f"{server}/{name}")
    for collection in inside.list_collections():
        inside.drop_collection(collection)
    inside.close()
    client.drop_database(name)
    client.close()


@pytest.fixture
def standard_promotion():
    """For code that calls optax's Adam or Flax's bfloat16 batch norm, which mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield
