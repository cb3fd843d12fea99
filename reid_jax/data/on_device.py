"""Images that are decoded once and held by the training devices, without TensorFlow."""

import math
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reid_jax.data.memory import MemoryImages
from reid_jax.runtime import hosts
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.progress import Progress

# The share of a device's memory that images may take. The size of a network is known only after its
# step is compiled, after minutes of decoding. At full size it is several GiB, more than the images
# of any recipe: a half rejects no images beside which a network fits.
_SHARE = 0.5


class DeviceImages:
    """The loader `device` of `loaders.open_images`: every device holds all images.

    To gather a batch, only its indices are transferred.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        devices: list[jax.Device],
        progress: Progress = None,
        *,
        team: hosts.Team = hosts.ALONE,
    ):
        """Decode and resize every file; arguments and errors are those of `open_images`.

        Raises:
            ValueError: a device has too little memory. This is checked before any file is read.
        """
        _check_fit(len(paths), size, devices)
        pixels = MemoryImages(paths, size, progress, team=team).pixels
        # Placed as the pmapped function takes them; otherwise every call would transfer them again.
        everywhere = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec())
        self._pixels = jax.device_put(pixels, everywhere)
        self._count = len(devices)
        self._take = jax.pmap(
            lambda pixels, indices: pixels[indices],
            axis_name=AXIS,
            in_axes=(None, 0),
            devices=devices,
        )

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[jax.Array]:
        """Gather batches on the devices, asynchronously.

        Args:
            index_batches: (B,) int32 each, B the same in all and a multiple of the devices.

        Returns:
            An iterator over (devices, B / devices, H, W, 3) uint8 RGB, one row on each device.
        """
        for indices in index_batches:
            yield self._take(self._pixels, indices.reshape(self._count, -1))


def _check_fit(count: int, size: tuple[int, int], devices: list[jax.Device]) -> None:
    """Raise ValueError if images would leave a device no room for a network."""
    needed = count * math.prod(size) * 3
    for device in devices:
        # CPU devices report no memory, because theirs is the host's.
        limit = (device.memory_stats() or {}).get("bytes_limit")
        if limit is not None and needed > _SHARE * limit:
            raise ValueError(
                f"data.loader is device, but {count:,} images of {size[0]}x{size[1]} take "
                f"{needed:,} bytes, and {device.device_kind} has {limit:,}, of which {_SHARE:.0%} "
                "are for images: use --config.data.loader=memory or --config.data.loader=tfdata"
            )
