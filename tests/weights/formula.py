"""Weights and pixels computed by a formula, so that they do not have to be stored.

It uses only integer arithmetic, so every machine and NumPy version gives the same bits.
"""

import math
import zlib

import numpy as np


def uniform(name, shape):
    """Pseudorandom numbers in [0, 1), a function of a name and their positions."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint64)
        x += np.uint64(zlib.crc32(name.encode()) << 32)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32) / np.float32(2**24)).reshape(shape)


def tensor(name, shape):
    """A weight by its name in PyTorch, scaled so that maps neither vanish nor explode."""
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
    """Images, (B, H, W, 3) float32, with values as after normalisation."""
    return 4 * uniform("images", (count, height, width, 3)) - 2
