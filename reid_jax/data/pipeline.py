"""Batches to train on and to evaluate on, from any loader of images."""

from collections.abc import Callable, Iterator

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
          Where several hosts share a batch, each passes a function that gives its own part.
        start_step: the first step; no earlier one is touched.
        stop_step: one past the last.

    Returns:
        An iterator over {"image": (B, H, W, 3) uint8, "label": (B,) int32}. Images of the loader
        `device` come as `on_device.DeviceImages.batches` says.
    """
    steps = range(start_step, stop_step)
    # Loaders read ahead in a thread of their own, so its indices are computed again and not shared.
    for step, batch in zip(steps, images.batches(map(sampler, steps)), strict=True):
        yield {"image": batch, "label": labels[sampler(step)]}


def eval_batches(
    images: Images, count: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first `count` images in order, none lost.

    Args:
        images: at least `count` images.
        count: how many to deliver.
        batch_size: B. The last batch is filled up with the last image.

    Returns:
        An iterator over (B, H, W, 3) uint8 images and (B,) bool masks, False where an image is only
        there to fill the batch.
    """
    starts = range(0, count, batch_size)
    indices = [np.arange(start, start + batch_size, dtype=np.int32) for start in starts]
    batches = images.batches(np.minimum(index, count - 1) for index in indices)
    for index, batch in zip(indices, batches, strict=True):
        yield batch, index < count
