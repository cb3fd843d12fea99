"""From images to descriptors: applies the inference face to whole splits, to every image."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.data.augment import normalize
from reid_jax.data.batch_sizes import batch_sizes
from reid_jax.data.loaders import Images
from reid_jax.data.pipeline import eval_batches
from reid_jax.models.folding import fold, skip_folded
from reid_jax.models.winograd import TRANSFORMED, transformed, use_transformed
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import memory_set_by, place
from reid_jax.runtime.progress import Progress, Tracker

# Batches that are queued on the devices while the host collects earlier descriptors.
_AHEAD = 2

# What a batch costs in addition to its images, in images, see `batch_sizes`. That of accelerators
# is not measured.
_FIXED = {"cpu": 2}
_FIXED_ELSEWHERE = 16


def pmap_face(network: nn.Module, devices: list[jax.Device], method: str = "__call__") -> Callable:
    """Compile a face of the network, which takes images and maybe other arrays, over `devices`.

    Returns:
        face(variables, images, *others), which returns an array (B, ...). Images are uint8 (B, H,
        W, 3), with B a multiple of the number of devices; `others` are arrays (B, ...) that
        `method` takes after the images.
    """
    return _pmap_face(network, tuple(devices), method)


# Equal networks are traced and compiled once in a process.
@functools.lru_cache(maxsize=8)
def _pmap_face(network: nn.Module, devices: tuple[jax.Device, ...], method: str) -> Callable:
    def face(variables, images, *others):
        return network.apply(variables, normalize(images), *others, method=method)

    return _over_devices(face, devices)


def descriptor_face(
    network: nn.Module, devices: list[jax.Device], *, flip: bool = False, unit_length: bool = False
) -> Callable:
    """Compile `descriptor_function` over `devices`, as `pmap_face` does.

    Args:
        network: its inference face returns descriptors (B, D).
        devices: the devices that share each batch.
        flip: see `descriptor_function`.
        unit_length: see `descriptor_function`.
    """
    return _descriptor_face(network, tuple(devices), flip, unit_length)


@functools.lru_cache(maxsize=8)
def _descriptor_face(
    network: nn.Module, devices: tuple[jax.Device, ...], flip: bool, unit_length: bool
) -> Callable:
    return _over_devices(descriptor_function(network, flip=flip, unit_length=unit_length), devices)


def descriptor_function(
    network: nn.Module, *, flip: bool = False, unit_length: bool = False
) -> Callable:
    """Descriptors with the usual post-processing of re-ID programs, as a pure function.

    Args:
        network: its inference face returns descriptors (B, D).
        flip: return the mean of the descriptors of an image and its mirror image, at twice the
            cost.
        unit_length: divide each descriptor by its Euclidean length, after flipping.

    Returns:
        face(variables, images): uint8 (B, H, W, 3) to (B, D) float32. B may be symbolic. The
        variables are the network's, or what `descriptor_weights` or `folding.fold` makes of them.
    """

    def describe(variables, images) -> jax.Array:
        with nn.intercept_methods(skip_folded), nn.intercept_methods(use_transformed):
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
            # A descriptor of zeros, as a collapsed network returns it, stays zero.
            descriptors *= jax.lax.rsqrt(jnp.maximum(squared, jnp.finfo(jnp.float32).tiny))
        return descriptors

    return face


def descriptor_weights(
    network: nn.Module, variables: dict[str, Any], devices: list[jax.Device]
) -> dict[str, Any]:
    """Weights for `descriptor_face` that take less time: descriptors differ by rounding only.

    Batch norms are folded into the layers before them. CPUs also get the transforms of 3x3 kernels,
    in 16/9 of their memory. A network that computes in bfloat16 gets its kernels rounded, which its
    layers would do in each call: descriptors are the same bits. Folded kernels would be rounded to
    other values.

    Args:
        network: the network of `variables`.
        variables: {"params", "batch_stats"}.
        devices: the devices of the result.
    """
    if network.dtype != jnp.float32:
        return place(_rounded(variables, network.dtype), devices)
    weights = fold(jax.device_get(variables))
    if devices[0].platform == "cpu":
        weights[TRANSFORMED] = transformed(weights["params"])
    return place(weights, devices)


def _rounded(variables: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Variables with all kernels in `dtype`, except classifiers, which descriptors do not need."""

    def leaf(path, value):
        names = [key.key for key in path]
        return value.astype(dtype) if names[-1] == "kernel" and "classifier" not in names else value

    return jax.tree_util.tree_map_with_path(leaf, jax.device_get(variables))


def _over_devices(face: Callable, devices: tuple[jax.Device, ...]) -> Callable:
    if len(devices) == 1:  # where `pmap` takes a tenth of a millisecond more for each call
        return jax.jit(face)
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
    *,
    devices: Sequence[jax.Device],
) -> np.ndarray:
    """Apply a face to images, part after part, each in order, and return one array.

    Memory holds that array and a few batches.

    Args:
        face: from `descriptor_face` or `pmap_face`.
        variables: {"params", "batch_stats"}.
        parts: images, from `reid_jax.data.decoding.open_images`, and for each the number of leading
            images to use.
        batch_size: images per batch at most, a multiple of the number of devices. The last batches
            of each part are smaller, and the very last may be padded; the results of the padding
            are dropped.
        progress: called with progress messages; None disables them.
        devices: those of the face.

    Returns:
        (N, ...) float32, N the sum of all counts: descriptors (N, D), or maps.

    Raises:
        MemoryError: a device has too little; names the leaf to lower.
    """
    total = sum(count for _, count in parts)
    results, done = np.empty(0, np.float32), 0
    fixed = _FIXED.get(devices[0].platform, _FIXED_ELSEWHERE)
    outputs = (
        (face(variables, batch), mask)
        for images, count in parts
        for batch, mask in eval_batches(
            images, count, batch_sizes(count, batch_size, devices=len(devices), fixed=fixed)
        )
    )
    tracking = Tracker(progress, total, "described", show=("rate", "ETA"))
    with memory_set_by("eval.batch_size, or batch_size of reid_jax.load"), tracking as tracker:
        for output, mask in _delayed(outputs, _AHEAD):
            rows = np.asarray(output)[mask]
            if not done:  # The shape is known only now.
                results = np.empty((total, *rows.shape[1:]), np.float32)
            results[done : done + len(rows)] = rows
            done += len(rows)
            tracker.update(done)
    return results


def _delayed(items: Iterable, count: int) -> Iterator:
    """Yield the items, each after `count` later ones were made or the last one was."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
