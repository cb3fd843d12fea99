"""Images of files, all checked first, then delivered in batches by one of three loaders."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from reid_jax.choices import LOADERS
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress


class Images(Protocol):
    """N images of one size."""

    def __len__(self) -> int:
        """N."""

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Any]:
        """Delivers batches in the order asked for.

        Args:
            index_batches: (B,) int32 each, B the same in all. Read ahead, in another thread
                perhaps.

        Returns:
            An iterator over (B, H, W, 3) uint8 RGB, one for each batch of indices. Each has memory
            of its own that is not written to again: a transfer may read it later. The loader
            `device` alone gathers on the devices; see `on_device.DeviceImages.batches`.
        """


def open_images(
    paths: Sequence[str],
    size: tuple[int, int],
    loader: str = "tfdata",
    progress: Progress = None,
    devices: list[jax.Device] | None = None,
    *,
    team: hosts.Team = hosts.ALONE,
) -> Images:
    """Reads every file once, checks that it decodes, and makes a loader of the images.

    `tfdata` holds the files' bytes and decodes and resizes them with tf.data, in parallel, ahead of
    the one who asks; resizing is compiled where all files are of one size, and Pillow's where they
    are not. `memory` holds the resized pixels, N * H * W * 3 bytes, and needs no TensorFlow.
    `device` holds the same on every one of `devices`, and gathers batches there. All deliver the
    same pixels, bit for bit: they decode JPEG with the accurate integer transform, and resize as
    `decoding.resize` says, in integers.

    A JPEG, PNG, GIF, BMP, WebP or TIFF that Pillow reads will do, of at most `decoding.MAX_SIDE`
    pixels a side and `decoding.MAX_BYTES`: grey, palette, CMYK, 16 bits and alpha become RGB (alpha
    is dropped), and the EXIF orientation is applied.

    Args:
        paths: N files.
        size: (H, W), pixels.
        loader: `tfdata`, `memory` or `device`.
        progress: called with progress messages while files are read; None disables them.
        devices: those that train on the images. None, as for evaluation, is for images that the
            host delivers: `device` is then as `memory`.
        team: who reads and decodes the files. With `hosts.EVERYBODY`, each host does its part and
          sends the result to the others.

    Returns:
        The images, in the order of the paths.

    Raises:
        ValueError: the loader is unknown, or some files are bad, as `decoding.raise_problems` says;
          or the loader is `device` and a device has too little memory.
        ImportError: the loader is `tfdata` and TensorFlow is not installed.
    """
    if loader == "tfdata":
        from reid_jax.data.tfdata import TfdataImages

        return TfdataImages(paths, size, progress, team=team)
    if loader == "device" and devices is not None:
        from reid_jax.data.on_device import DeviceImages

        return DeviceImages(paths, size, devices, progress, team=team)
    if loader in ("memory", "device"):
        from reid_jax.data.memory import MemoryImages

        return MemoryImages(paths, size, progress, team=team)
    raise ValueError(f"unknown loader {loader!r} (data.loader); known: {', '.join(LOADERS)}")
