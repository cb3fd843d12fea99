import numpy as np

from reid_jax.data import loaders

LOADERS = ("memory", "disk", "tfdata")


SIZE = (24, 10)


def load(paths, loader, size=SIZE):
    opened = loaders.open_images([str(path) for path in paths], size, loader)
    assert len(opened) == len(paths)
    (batch,) = opened.batches([np.arange(len(paths), dtype=np.int32)])
    assert batch.dtype == np.uint8
    assert batch.shape == (len(paths), *size, 3)
    return np.array(batch)
