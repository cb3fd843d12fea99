import numpy as np

from reid_jax.data import loaders
from reid_jax.data.encoded import EncodedImages

# `encoded` is what `tfdata` uses where decoded images have no room.
LOADERS = ("memory", "disk", "tfdata", "encoded")


SIZE = (24, 10)


def open_images(paths, size, loader, progress=None):
    if loader == "encoded":
        return EncodedImages(paths, size, progress)
    return loaders.open_images(paths, size, loader, progress)


def load(paths, loader, size=SIZE):
    opened = open_images([str(path) for path in paths], size, loader)
    assert len(opened) == len(paths)
    (batch,) = opened.batches([np.arange(len(paths), dtype=np.int32)])
    assert batch.dtype == np.uint8
    assert batch.shape == (len(paths), *size, 3)
    return np.array(batch)
