"""Weights and pixels that are a formula, so that reference numbers need none stored.

Integer arithmetic alone: the same bits on every machine and with every version of NumPy.
"""

import math
import zlib

import numpy as np


def uniform(name, shape):
    """Numbers in [0, 1) that look random, a function of a name and their places."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint64)
        x += np.uint64(zlib.crc32(name.encode()) << 32)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32) / np.float32(2**24)).reshape(shape)


def tensor(name, shape):
    """A weight by its name in PyTorch, such that maps neither vanish nor explode."""
    x = uniform(name, shape)
    if name.endswith("num_batches_tracked"):
        return np.array(1000, np.int64)
    if len(shape) > 1:
        return (2 * x - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))
    if name.endswith("running_var"):
        return x + np.float32(0.5)
    if name.endswith("weight"):
        return x + np.float32(0.2)
    return x - np.float32(0.5)


def images(count, height, width):
    """(B, H, W, 3) float32, as if normalised."""
    return 4 * uniform("images", (count, height, width, 3)) - 2
