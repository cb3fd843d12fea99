import jax
import numpy as np
import pytest

from reid_jax.runtime.collectives import AXIS
from reid_jax.training.feed import feed
from tests.compilations import count_compilations


def batches(count, size=8):
    """Batches in which all values of batch i are i."""
    for i in range(count):
        yield {
            "image": np.full((size, 3, 2, 3), i, np.uint8),
            "label": np.arange(size, dtype=np.int32) + i,
        }


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_all_batches_arrive_in_order(count, devices):
    fed = list(feed(batches(count), jax.devices()[:devices]))
    assert len(fed) == count
    for i, batch in enumerate(fed):
        assert batch["image"].shape == (devices, 8 // devices, 3, 2, 3)
        assert batch["image"].dtype == np.uint8
        assert (np.asarray(batch["image"]) == i).all()
        np.testing.assert_array_equal(batch["label"].reshape(8), np.arange(8) + i)


@pytest.mark.parametrize("count", [1, 4])
def test_batches_lie_as_a_pmapped_function_takes_and_returns_them(count):
    """The first batch needs no second program, and no copy from device to device."""
    devices = jax.devices()[:count]
    identity = jax.pmap(lambda x: x, axis_name=AXIS, devices=devices)
    fed = feed(batches(3), devices)
    returned = identity(next(fed))
    with jax.transfer_guard("disallow"), count_compilations() as events:
        for batch in fed:
            assert jax.tree.map(lambda x: x.sharding, batch) == jax.tree.map(
                lambda x: x.sharding, returned
            )
            identity(batch)
        identity(returned)
    assert events == []


def test_one_batch_is_on_its_way_while_another_is_used():
    sent = []

    def spy():
        for i, batch in enumerate(batches(4)):
            sent.append(i)
            yield batch

    fed = feed(spy(), jax.devices()[:2])
    assert sent == []
    for i, _ in enumerate(fed):
        assert sent == list(range(min(i + 2, 4)))


def test_what_is_on_the_devices_stays_there():
    (batch,) = feed(batches(1), jax.devices())
    (again,) = feed([batch], jax.devices())
    assert all(again[name] is batch[name] for name in batch)
