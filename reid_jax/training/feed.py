"""Batches on their way from the host to the devices, one ahead of the step."""

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
    """Places batches as the pmapped step takes them, each while the step before it runs.

    Nothing is waited for: transfers and steps are queued on the devices.

    Args:
        batches: of leaves (B, ...) in NumPy, none of them written to again; or, as the loader
            `device` gives, of leaves (devices, B / devices, ...) that are on the devices.
        devices: those of the step that are this host's.

    Returns:
        An iterator over the same batches, of leaves (devices, B / devices, ...), one row on each
        device.
    """
    # The placement that the step is compiled for. Flax's `prefetch_to_device` has another name for
    # the axis, and copies every batch in the host's memory first.
    rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))

    def place(leaf):
        if isinstance(leaf, jax.Array):
            return leaf
        return jax.device_put(shard(leaf, len(devices)), rows)

    placed = (jax.tree.map(place, batch) for batch in batches)
    # A pair's second is asked for before its first is handed out.
    for batch, _ in itertools.pairwise(itertools.chain(placed, [None])):
        yield batch
