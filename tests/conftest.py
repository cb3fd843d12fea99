"""Hostile settings for every test: what would pass silently elsewhere is an error here.

Four CPU devices, strict dtype promotion, rank promotion raises, warnings are errors (see
pyproject.toml).
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def standard_promotion():
    """For code that calls optax's Adam or Flax's bfloat16 batch norm, which mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield
