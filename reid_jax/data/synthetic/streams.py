"""Random streams: each is a pure function of a seed, a name and a few numbers."""

import functools
import zlib

import numpy as np


def stream(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """A separate generator for each (seed, name, numbers).

    Args:
        seed: the dataset's seed, at least 0.
        name: the kind of thing to draw, for example "person".
        *numbers: which one to draw. At least -1, the identity of a junk box.

    Returns:
        A new generator. Drawing from other streams does not change its numbers.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *(n + 1 for n in numbers)])


@functools.cache
def noise_tile(size: int = 256) -> np.ndarray:
    """A smooth random texture that tiles, the same in every process.

    Returns:
        (size, size) float32, mean 0 and deviation 1. Octaves of value noise, for cloth folds,
        foliage, stains on the ground.
    """
    rng = stream(0, "noise tile")
    tile = np.zeros((size, size), np.float32)
    for octave, weight in ((8, 0.5), (16, 0.7), (32, 0.5), (64, 0.3)):
        cells = rng.standard_normal((octave, octave)).astype(np.float32)
        at = np.arange(size, dtype=np.float32) * octave / size
        low = at.astype(int)
        mix = at - low
        mix = mix * mix * (3 - 2 * mix)
        rows = cells[low] * (1 - mix)[:, None] + cells[(low + 1) % octave] * mix[:, None]
        tile += weight * (rows[:, low] * (1 - mix) + rows[:, (low + 1) % octave] * mix)
    return (tile - tile.mean()) / tile.std()


def noise(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The noise tile at any coordinates (same shapes; one unit is one tile), nearest sample."""
    tile = noise_tile()
    size = len(tile)
    row, column = np.floor(down * size), np.floor(across * size)
    return tile[row.astype(np.int32) & (size - 1), column.astype(np.int32) & (size - 1)]
