"""Images that are decoded once for all runs, without TensorFlow."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from reid_jax.data.pixel_file import open_pixels
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress


class DiskImages:
    """The loader `disk` of `loaders.open_images`.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB, memory-mapped and read-only, see
            `pixel_file.open_pixels`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Progress = None,
        *,
        team: hosts.Team = hosts.ALONE,
    ):
        """Decode what is not yet on disk; arguments and errors are those of `open_images`."""
        try:
            self.pixels = open_pixels(paths, size, progress, team=team)
        except OSError as error:
            raise OSError(
                f"data.loader is disk, but {error}: use data.loader=memory or tfdata, or name "
                "another cache folder by XDG_CACHE_HOME"
            ) from error

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Gather batches, see `loaders.Images.batches`."""
        for indices in index_batches:
            yield np.asarray(self.pixels[indices])
