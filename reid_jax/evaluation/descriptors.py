"""From images to descriptors: the inference face over a whole split, no image lost."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from reid_jax.collectives import AXIS
from reid_jax.data.augment import normalize
from reid_jax.data.pipeline import eval_batches


def pmap_face(network: nn.Module, devices: list[jax.Device], method: str = "__call__") -> Callable:
    """A face of the network that takes images alone, over `devices`.

    Returns:
        face(variables, images): uint8 (B, H, W, 3), B a multiple of the number of devices, to an
        array (B, ...).
    """

    def face(variables, images):
        return network.apply(variables, normalize(images), method=method)

    mapped = jax.pmap(face, axis_name=AXIS, in_axes=(None, 0), devices=devices)

    def over_devices(variables, images):
        parts = images.reshape(len(devices), -1, *images.shape[1:])
        outputs = mapped(variables, parts)
        return outputs.reshape(images.shape[0], *outputs.shape[2:])

    return over_devices


def extract(face: Callable, variables, images, count: int, batch_size: int) -> np.ndarray:
    """Descriptors of the first `count` images of a split, in order.

    Args:
        face: from `pmap_face`.
        variables: {"params", "batch_stats"}.
        images: from `reid_jax.data.images.open_images`.
        count: images in the split, N.
        batch_size: images a call; the last batch is padded and what the padding gives is dropped.

    Returns:
        (N, D) float32.
    """
    rows = []
    for batch, mask in eval_batches(images, count, batch_size):
        rows.append((face(variables, batch), mask))
    return np.concatenate([np.asarray(descriptors)[mask] for descriptors, mask in rows])
