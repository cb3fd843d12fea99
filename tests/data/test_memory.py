"""The loader `memory`."""

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import decoding
from reid_jax.data.memory import MemoryImages


@pytest.fixture
def paths(rng, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for i, path in enumerate(paths):
        noise = rng.integers(0, 256, (8 + i, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return paths


def test_every_file_is_decoded_once_and_resized(paths):
    progress = []
    images = MemoryImages(paths, (7, 4), progress.append)
    wanted = [np.asarray(decoding.resize(Image.open(path), (7, 4))) for path in paths]
    np.testing.assert_array_equal(images.pixels, wanted)
    assert (len(images), images.pixels.dtype) == (5, np.uint8)
    assert progress == ["read 5 of 5 images"]


def test_batches_are_gathered_in_the_order_asked_for(paths):
    images = MemoryImages(paths, (7, 4))
    for path in paths:
        open(path, "w").close()  # The files are not read again.
    batches = list(images.batches([np.array([4, 0, 4]), np.array([2])]))
    assert [len(batch) for batch in batches] == [3, 1]
    np.testing.assert_array_equal(batches[0], images.pixels[[4, 0, 4]])


def test_all_bad_files_are_named_at_once(paths):
    for path in paths[1:3]:
        open(path, "w").close()
    with pytest.raises(ValueError, match=r"(?s)1\.png.*2\.png"):
        MemoryImages(paths, (7, 4))
