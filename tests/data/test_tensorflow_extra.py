"""The loader `tfdata` without TensorFlow."""

import importlib.util

import pytest

from reid_jax.data.tensorflow_extra import check_loader


def test_only_tfdata_needs_tensorflow(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for loader in ("memory", "disk", "device"):
        check_loader(loader)
    with pytest.raises(ImportError, match=r"--config\.data\.loader=memory, or install the extra"):
        check_loader("tfdata")


def test_with_tensorflow_every_loader_serves(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_loader("tfdata")
