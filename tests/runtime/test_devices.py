import types

import jax
import numpy as np
import pytest

from reid_jax.data.memory import MemoryImages
from reid_jax.evaluation import descriptors, distances
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.descriptors import extract
from reid_jax.evaluation.ranking import evaluate_ranking
from reid_jax.runtime import devices

FEW = Descriptors(np.eye(2, dtype=np.float32), np.array([1, 1]), np.array([1, 2]))


def fakes(monkeypatch, *counts):
    """Devices of several hosts, `counts` on each, in JAX's order, which is not by host."""
    every = [
        types.SimpleNamespace(process_index=host, id=i)
        for i in range(max(counts))
        for host, count in enumerate(counts)
        if i < count
    ]
    monkeypatch.setattr(jax, "devices", lambda: every)
    monkeypatch.setattr(jax, "process_count", lambda: len(counts))
    return every


def test_all_or_the_first_of_one_host():
    every = jax.devices()
    assert len(every) == 4
    assert devices.choose_devices(0) == every
    assert devices.choose_devices(3) == every[:3]
    assert devices.own_devices(every) == every


@pytest.mark.parametrize("count", [-1, 5])
def test_more_than_there_are_is_an_error(count):
    with pytest.raises(ValueError, match=rf"^devices is {count}, but this machine has 4$"):
        devices.choose_devices(count)


def test_hosts_give_the_same_number_one_after_the_other(monkeypatch):
    every = fakes(monkeypatch, 2, 2)
    chosen = devices.choose_devices(0)
    assert [(d.process_index, d.id) for d in chosen] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    chosen = devices.choose_devices(2)
    assert [(d.process_index, d.id) for d in chosen] == [(0, 0), (1, 0)]
    assert devices.own_devices(every) == [d for d in every if d.process_index == 0]


@pytest.mark.parametrize(
    ("counts", "count", "message"),
    [
        ((2, 2), 3, "3 devices cannot be shared by 2 hosts, which have 2, 2"),
        ((3, 1), 0, "4 devices cannot be shared by 2 hosts, which have 3, 1"),
        ((2, 2), 5, "devices is 5, but these 2 hosts have 4"),
    ],
)
def test_hosts_that_cannot_are_an_error(counts, count, message, monkeypatch):
    fakes(monkeypatch, *counts)
    with pytest.raises(ValueError, match=message):
        devices.choose_devices(count)


def test_a_batch_that_does_not_divide_names_the_leaves():
    devices.check_divides([None] * 4, 8, "data.a x data.b")
    with pytest.raises(ValueError, match=r"9 images \(data\.a x data\.b\) does not divide by 4"):
        devices.check_divides([None] * 4, 9, "data.a x data.b")


def test_a_platform_without_devices_is_one_line_with_the_fix(monkeypatch):
    for error in (RuntimeError("Unable to initialize backend 'tpu'\nmore"), AssertionError()):

        def fail(error=error):
            raise error

        monkeypatch.setattr(jax, "devices", fail)
        with pytest.raises(OSError, match=r"^JAX_PLATFORMS is .*Set JAX_PLATFORMS=cpu") as raised:
            devices.choose_devices(0)
        assert len(str(raised.value).splitlines()) == 1
        assert str(error).partition("\n")[0] in str(raised.value)


def exhaust(*unused_arguments):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\nmore")


@pytest.mark.parametrize(
    ("work", "leaf"),
    [
        (
            lambda: extract(
                exhaust, {}, [(MemoryImages([], (8, 4)), 1)], 1, devices=jax.devices()[:1]
            ),
            "eval.batch_size",
        ),
        (lambda: evaluate_ranking(FEW, FEW), "eval.block_size"),
    ],
)
def test_too_little_memory_is_one_line_that_names_the_leaf(work, leaf, monkeypatch):
    monkeypatch.setattr(descriptors, "eval_batches", lambda *unused: [(None, None)])
    monkeypatch.setattr(distances, "_scores", exhaust)
    with pytest.raises(MemoryError, match=rf"allocating 9 bytes\): lower {leaf}") as raised:
        work()
    assert len(str(raised.value).splitlines()) == 1


def test_other_errors_of_devices_stay(monkeypatch):
    def fail(*unused):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(distances, "_scores", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        evaluate_ranking(FEW, FEW)
