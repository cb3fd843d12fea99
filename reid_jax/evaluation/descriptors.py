"""From images to descriptors: the inference face over whole splits, no image lost."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.data.augment import normalize
from reid_jax.data.loaders import Images
from reid_jax.data.pipeline import eval_batches
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import memory_set_by
from reid_jax.runtime.progress import Progress, Tracker

# Batches that devices work on while the host takes an earlier one's descriptors.
_AHEAD = 2


def pmap_face(network: nn.Module, devices: list[jax.Device], method: str = "__call__") -> Callable:
    """A face of the network that takes images, and perhaps other arrays, over `devices`.

    Returns:
        face(variables, images, *others): uint8 (B, H, W, 3), B a multiple of the number of devices,
        and other arrays (B, ...) that `method` takes after the images, to an array (B, ...).
    """

    def face(variables, images, *others):
        return network.apply(variables, normalize(images), *others, method=method)

    return _over_devices(face, devices)


def descriptor_face(
    network: nn.Module, devices: list[jax.Device], *, flip: bool = False, unit_length: bool = False
) -> Callable:
    """As `pmap_face`, of `descriptor_function`.

    Args:
        network: whose inference face gives descriptors (B, D).
        devices: to share each batch.
        flip: see `descriptor_function`.
        unit_length: likewise.
    """
    return _over_devices(descriptor_function(network, flip=flip, unit_length=unit_length), devices)


def descriptor_function(
    network: nn.Module, *, flip: bool = False, unit_length: bool = False
) -> Callable:
    """The network's descriptors and what re-ID programs do to them, as a pure function.

    Args:
        network: whose inference face gives descriptors (B, D).
        flip: the mean of an image's descriptor and its mirror image's; twice the work.
        unit_length: divide each by its Euclidean length, after that.

    Returns:
        face(variables, images): uint8 (B, H, W, 3) to (B, D) float32. B may be symbolic.
    """

    def describe(variables, images) -> jax.Array:
        descriptors = network.apply(variables, images)
        assert isinstance(descriptors, jax.Array)
        return descriptors

    def face(variables, images):
        images = normalize(images)
        descriptors = describe(variables, images)
        if flip:
            mirrored = jnp.flip(images, axis=2)
            descriptors = 0.5 * (descriptors + describe(variables, mirrored))
        if unit_length:
            squared = jnp.square(descriptors).sum(axis=1, keepdims=True)
            # A descriptor of zeros, as of a network that collapsed, stays one.
            descriptors *= jax.lax.rsqrt(jnp.maximum(squared, jnp.finfo(jnp.float32).tiny))
        return descriptors

    return face


def _over_devices(face: Callable, devices: list[jax.Device]) -> Callable:
    mapped = jax.pmap(
        lambda variables, batch: face(variables, *batch),
        axis_name=AXIS,
        in_axes=(None, 0),
        devices=devices,
    )

    def over_devices(variables, *batch):
        parts = tuple(array.reshape(len(devices), -1, *array.shape[1:]) for array in batch)
        outputs = mapped(variables, parts)
        return outputs.reshape(len(batch[0]), *outputs.shape[2:])

    return over_devices


def extract(
    face: Callable,
    variables,
    parts: Sequence[tuple[Images, int]],
    batch_size: int,
    progress: Progress = None,
) -> np.ndarray:
    """What a face says of images, part after part, each in order, in one array.

    Memory holds that array and a few batches.

    Args:
        face: from `descriptor_face` or `pmap_face`.
        variables: {"params", "batch_stats"}.
        parts: images, from `reid_jax.data.decoding.open_images`, and how many of the first to take.
        batch_size: images a call; each part's last batch is padded and what the padding gives is
            dropped.
        progress: called with progress messages; None disables them.

    Returns:
        (N, ...) float32, N the sum of all counts: descriptors (N, D), or maps.

    Raises:
        MemoryError: a device has too little; names the leaf to lower.
    """
    total = sum(count for _, count in parts)
    results, done = np.empty(0, np.float32), 0
    outputs = (
        (face(variables, batch), mask)
        for images, count in parts
        for batch, mask in eval_batches(images, count, batch_size)
    )
    tracking = Tracker(progress, total, "described", show=("rate", "ETA"))
    with memory_set_by("eval.batch_size, or batch_size of reid_jax.load"), tracking as tracker:
        for output, mask in _delayed(outputs, _AHEAD):
            rows = np.asarray(output)[mask]
            if not done:  # Only now is the shape known.
                results = np.empty((total, *rows.shape[1:]), np.float32)
            results[done : done + len(rows)] = rows
            done += len(rows)
            tracker.update(done)
    return results


def _delayed(items: Iterable, count: int) -> Iterator:
    """The items, each once `count` later ones have been made or none are left."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
