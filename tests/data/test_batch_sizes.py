"""Sizes of batches: all images are covered, at the least cost, with few sizes."""

import itertools
from types import SimpleNamespace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_jax.data.batch_sizes import batch_limit, batch_sizes


@pytest.mark.parametrize(
    ("image_size", "images"),
    [((384, 128), 8), ((256, 128), 8), ((192, 64), 32), ((64, 32), 128), ((1024, 512), 8)],
)
def test_batches_on_a_cpu_have_the_pixels_of_8_large_images(image_size, images):
    devices = jax.devices()
    assert batch_limit(1000, image_size, devices) == images
    assert batch_limit(3, image_size, devices) == 3
    assert batch_limit(1000, image_size, [SimpleNamespace(platform="gpu")]) == 1000


@given(
    count=st.integers(0, 300),
    groups=st.integers(1, 40),
    devices=st.integers(1, 4),
    fixed=st.integers(0, 20),
)
def test_sizes_cover_all_images_and_no_batch_is_padding(count, groups, devices, fixed):
    limit = groups * devices
    sizes = batch_sizes(count, limit, devices=devices, fixed=fixed)
    assert sum(sizes) >= count
    assert sum(sizes[:-1]) < count or not sizes
    assert sizes == sorted(sizes, reverse=True)
    powers = {devices * 2**k for k in range(10)}
    assert set(sizes) <= {size for size in powers if size < limit} | {limit}
    assert sizes[: count // limit] == [limit] * (count // limit)


@pytest.mark.parametrize("fixed", [0, 2, 16])
@pytest.mark.parametrize("count", range(1, 16))
def test_the_cost_is_the_least_of_all_covers(count, fixed):
    covers = itertools.chain.from_iterable(
        itertools.combinations_with_replacement((1, 2, 4, 8, 16), n) for n in range(1, count + 1)
    )
    least = min(sum(cover) + fixed * len(cover) for cover in covers if sum(cover) >= count)
    sizes = batch_sizes(count, 16, fixed=fixed)
    assert sum(sizes) + fixed * len(sizes) == least


def test_small_calls_are_not_padded_to_a_whole_batch():
    assert batch_sizes(1, 128) == [1]
    assert batch_sizes(24, 128) == [16, 8]
    assert batch_sizes(64, 8) == [8] * 8
    assert batch_sizes(6, 8) == [8]  # One batch with two images of padding, not 4 and 2.
    assert batch_sizes(24, 128, fixed=16) == [32]  # On an accelerator.
    assert batch_sizes(5, 128, devices=4) == [8]
    assert batch_sizes(0, 8) == []
