"""Images of files: all are checked first, then delivered in batches by one of four loaders."""

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
        """The number of images, N."""

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Any]:
        """Deliver batches in the requested order.

        Args:
            index_batches: (B,) int32 each, with the same B. They are read ahead, maybe in another
                thread.

        Returns:
            An iterator over (B, H, W, 3) uint8 RGB, one for each batch of indices. Each has its own
            memory, which is not written to again, because a transfer may read it later. Only the
            loader `device` gathers on the devices; see `on_device.DeviceImages.batches`.
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
    """Check that every file decodes, and create a loader of the images.

    `memory` holds the resized pixels, N * H * W * 3 bytes. `disk` holds them in a file, which later
    runs open instead of the images. `tfdata` holds them in the same file, and tf.data gathers
    batches ahead of the consumer; without room on disk, it decodes and resizes in every epoch.
    `device` holds them on every one of `devices`, and gathers batches there. Only `tfdata` needs
    TensorFlow. All deliver the same pixels, bit for bit: they decode JPEG with the accurate integer
    transform, and resize like `decoding.resize`, in integers.

    A JPEG, PNG, GIF, BMP, WebP or TIFF that Pillow reads will do, of at most `decoding.MAX_SIDE`
    pixels a side and `decoding.MAX_BYTES`: grey, palette, CMYK, 16 bits and alpha become RGB (alpha
    is dropped), and the EXIF orientation is applied.

    Args:
        paths: N files.
        size: (H, W), pixels.
        loader: one of `choices.LOADERS`.
        progress: called with progress messages while files are read; None disables them.
        devices: the devices that train on the images. None, as for evaluation, means that the
            host delivers the images: `device` then equals `memory`.
        team: the hosts that open the files. With `hosts.EVERYBODY`, each host decodes its part and
            sends the result to the others. With a file of pixels, each host decodes all files.

    Returns:
        The images, in the order of the paths.

    Raises:
        ValueError: the loader is unknown, or some files are bad, see `decoding.raise_problems`;
          or the loader is `device` and a device has too little memory.
        ImportError: the loader is `tfdata` and TensorFlow is not installed.
        OSError: the loader is `disk` and the user's cache cannot be written to, or lacks room.
    """
    if loader == "tfdata":
        from reid_jax.data.tfdata import TfdataImages

        return TfdataImages(paths, size, progress, team=team)
    if loader == "disk":
        from reid_jax.data.disk import DiskImages

        return DiskImages(paths, size, progress, team=team)
    if loader == "device" and devices is not None:
        from reid_jax.data.on_device import DeviceImages

        return DeviceImages(paths, size, devices, progress, team=team)
    if loader in ("memory", "device"):
        from reid_jax.data.memory import MemoryImages

        return MemoryImages(paths, size, progress, team=team)
    raise ValueError(f"unknown loader {loader!r} (data.loader); known: {', '.join(LOADERS)}")
