"""Batches for training and evaluation, from any loader of images."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from reid_jax.data.loaders import Images


def train_batches(
    images: Images,
    labels: np.ndarray,
    sampler: Callable[[int], np.ndarray],
    start_step: int,
    stop_step: int,
) -> Iterator[dict[str, np.ndarray | jax.Array]]:
    """The batches of steps start_step to stop_step - 1.

    Args:
        images: N images.
        labels: (N,) int32, their identities renumbered from 0.
        sampler: the indices of a step's batch, (B,) int32; a pure function, called twice a step.
            If several hosts share a batch, each passes a function that returns its own part.
        start_step: the first step; no earlier one is touched.
        stop_step: one past the last.

    Returns:
        An iterator over {"image": (B, H, W, 3) uint8, "label": (B,) int32}. Images of the loader
        `device` have the form of `on_device.DeviceImages.batches`.
    """
    steps = range(start_step, stop_step)
    # Loaders read ahead in another thread, so the indices are computed again instead of shared.
    for step, batch in zip(steps, images.batches(map(sampler, steps)), strict=True):
        yield {"image": batch, "label": labels[sampler(step)]}


def eval_batches(
    images: Images, count: int, sizes: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first `count` images in order, without a loss.

    Args:
        images: at least `count` images.
        count: number of images to deliver.
        sizes: the size B of each batch, see `batch_sizes`. Their sum is at least `count`; the last
            batch is padded with the last image.

    Returns:
        An iterator over (B, H, W, 3) uint8 images and (B,) bool masks, False for the images that
        pad the batch.
    """
    starts = itertools.accumulate(sizes, initial=0)
    indices = [
        np.arange(start, start + size, dtype=np.int32)
        for start, size in zip(starts, sizes, strict=False)
    ]
    batches = images.batches(np.minimum(index, count - 1) for index in indices)
    for index, batch in zip(indices, batches, strict=True):
        yield batch, index < count
