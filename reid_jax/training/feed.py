"""Transfers batches from the host to the devices, one batch ahead of the step."""

import itertools
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reid_jax.runtime.collectives import AXIS
from reid_jax.training.step import shard


def feed(
    batches: Iterable[dict[str, np.ndarray | jax.Array]], devices: list[jax.Device]
) -> Iterator[dict[str, jax.Array]]:
    """Place batches as the pmapped step takes them, each while the previous step runs.

    The function does not block: transfers and steps are queued on the devices.

    Args:
        batches: batches of leaves (B, ...) in NumPy, which must not be modified later, or, from the
            loader `device`, of leaves (devices, B / devices, ...) that are already on the devices.
        devices: this host's devices out of those that run the step.

    Returns:
        An iterator over the same batches, with leaves (devices, B / devices, ...), one row on each
        device.
    """
    # The sharding that the step is compiled for. Flax's `prefetch_to_device` names the axis
    # differently and first copies every batch in the host's memory.
    rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))

    def place(leaf):
        if isinstance(leaf, jax.Array):
            return leaf
        return jax.device_put(shard(leaf, len(devices)), rows)

    placed = (jax.tree.map(place, batch) for batch in batches)
    # `pairwise` requests the next batch before it hands out the current one.
    for batch, _ in itertools.pairwise(itertools.chain(placed, [None])):
        yield batch
