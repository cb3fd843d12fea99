"""Sizes of the batches in which the images of one call are described."""

import functools
import math
from collections.abc import Sequence

import jax

# Pixels of a batch on a CPU at most, 8 images at the papers' size. In larger batches, images take
# up to 8 % longer.
_CPU_PIXELS = 8 * 384 * 128


def batch_limit(batch_size: int, image_size: Sequence[int], devices: Sequence[jax.Device]) -> int:
    """Images of a batch at most.

    Args:
        batch_size: `eval.batch_size`.
        image_size: (H, W), pixels.
        devices: those that describe.

    Returns:
        `batch_size`; on CPUs no more than as many as have the pixels of 8 images of 384x128, a
        power of two and at least 8.
    """
    if devices[0].platform != "cpu":
        return batch_size
    images = _CPU_PIXELS // math.prod(image_size)
    return min(batch_size, max(8, 1 << images.bit_length() >> 1))


def batch_sizes(count: int, limit: int, *, devices: int = 1, fixed: int = 2) -> list[int]:
    """The batches that describe `count` images at the least cost, the largest first.

    Each size is compiled once, so there are few: `limit`, and below it powers of two times
    `devices`. Batches of `limit` come first. The others are those with the least sum of size +
    `fixed`. On a CPU a batch costs as much as its images. On an accelerator a small batch costs
    nearly as much as a larger one, so it is better to pad one batch than to run two.

    Args:
        count: number of images, at least 0.
        limit: the largest batch, a multiple of `devices`.
        devices: number of devices that share each batch.
        fixed: what a batch costs in addition to its images, in images.

    Returns:
        Multiples of `devices`. Their sum is at least `count`, and less than that without the last.
    """
    full, rest = divmod(count, limit)
    return [limit] * full + list(_sizes_of_rest(rest, limit, devices, fixed))


@functools.lru_cache(maxsize=1024)  # For a few images, it takes as long as to describe one.
def _sizes_of_rest(rest: int, limit: int, devices: int, fixed: int) -> tuple[int, ...]:
    sizes = [devices]
    while sizes[-1] * 2 < limit:
        sizes.append(sizes[-1] * 2)
    sizes.append(limit)
    # best[n]: the least cost for n times `devices` images, the number of batches, and their sizes.
    best: list[tuple[int, int, list[int]]] = [(0, 0, [])]
    for n in range(1, -(-rest // devices) + 1):
        options = []
        for size in sizes:
            cost, batches, others = best[max(0, n - size // devices)]
            options.append((cost + size + fixed, batches + 1, [size, *others]))
        best.append(min(options))
    return tuple(sorted(best[-1][2], reverse=True))
