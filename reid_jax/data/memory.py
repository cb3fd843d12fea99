"""Images that are decoded once and held in memory, without TensorFlow."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from reid_jax.data import decoding
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress


class MemoryImages:
    """The loader `memory` of `loaders.open_images`.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Progress = None,
        *,
        team: hosts.Team = hosts.ALONE,
    ):
        """Decode and resize every file; arguments and errors are those of `open_images`."""
        pixels = np.empty((len(paths[team.part(len(paths))]), *size, 3), np.uint8)

        def keep(i, data, image):
            pixels[i] = np.asarray(decoding.resize(image, size))

        decoding.raise_problems(paths, decoding.visit(paths, keep, progress, team))
        self.pixels = team.rows(pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Gather batches, see `loaders.Images.batches`."""
        for indices in index_batches:
            yield self.pixels[indices]
