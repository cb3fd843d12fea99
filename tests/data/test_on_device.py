import types

import jax
import numpy as np
import pytest
from PIL import Image

from reid_jax.data import loaders, pipeline
from reid_jax.data.sampler import IdentitySampler
from tests.compilations import count_compilations

SIZE = (6, 4)
LABELS = np.repeat(np.arange(5, dtype=np.int32), 3)


@pytest.fixture
def paths(tmp_path, draw):
    """Fifteen images of noise."""
    found = [str(tmp_path / f"{i}.png") for i in range(15)]
    for path in found:
        draw(*SIZE).save(path)
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_devices_gather_what_the_host_would(paths, count):
    memory = loaders.open_images(paths, SIZE, "memory")
    device = loaders.open_images(paths, SIZE, "device", devices=jax.devices()[:count])
    assert len(device) == 15
    sampler = IdentitySampler(LABELS, 4, 2, seed=0)
    streams = (pipeline.train_batches(opened, LABELS, sampler, 2, 9) for opened in (memory, device))
    for expected, batch in zip(*streams, strict=True):
        assert batch["image"].shape == (count, 8 // count, *SIZE, 3)
        assert batch["image"].dtype == np.uint8
        assert [shard.device for shard in batch["image"].addressable_shards] == (
            jax.devices()[:count]
        )
        rows = np.asarray(batch["image"]).reshape(8, *SIZE, 3)
        np.testing.assert_array_equal(rows, expected["image"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


def test_every_device_holds_all_images_and_is_sent_none_again(paths):
    """A gather compiles once, and no pixel moves from device to device."""
    device = loaders.open_images(paths, SIZE, "device", devices=jax.devices())
    shards = device._pixels.addressable_shards
    assert [(shard.device, shard.data.shape) for shard in shards] == [
        (device, (15, *SIZE, 3)) for device in jax.devices()
    ]
    batches = device.batches(np.full(4, i, np.int32) for i in range(4))
    with jax.transfer_guard_device_to_device("disallow"):
        with count_compilations() as events:
            next(batches)
        assert events  # The listener works.
        with count_compilations() as events:
            assert len(list(batches)) == 3
    assert events == []


def test_an_evaluations_images_stay_with_the_host(paths):
    opened = loaders.open_images(paths, SIZE, "device")
    ((batch, _),) = pipeline.eval_batches(opened, 15, [15])
    assert isinstance(batch, np.ndarray)
    with Image.open(paths[7]) as image:
        np.testing.assert_array_equal(batch[7], image)


def fake(limit):
    stats = None if limit is None else {"bytes_in_use": 0, "bytes_limit": limit}
    return types.SimpleNamespace(memory_stats=lambda: stats, device_kind="abacus")


def test_images_that_do_not_fit_are_an_error_before_a_file_is_read():
    """All devices must hold them, and half of each is reserved for the network."""
    message = (
        r"data\.loader is device, but 1,000 images of 6x4 take 72,000 bytes, and abacus has "
        r"143,999, .*--config\.data\.loader=memory or --config\.data\.loader=tfdata"
    )
    with pytest.raises(ValueError, match=message):
        loaders.open_images(
            ["gone.png"] * 1000, SIZE, "device", devices=[fake(10**9), fake(143999)]
        )


@pytest.mark.parametrize("limit", [144000, None])
def test_images_that_fit_and_devices_that_tell_nothing_pass(limit):
    with pytest.raises(ValueError, match="1,000 of 1,000 files cannot be read"):
        loaders.open_images(["gone.png"] * 1000, SIZE, "device", devices=[fake(limit)])
