"""Images decoded once and held in memory, without TensorFlow."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from reid_jax.runtime.progress import Progress
from reid_jax.data import decoding
from reid_jax.runtime import hosts


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
        shared: bool = False,
    ):
        """Decodes and resizes every file; arguments and errors are those of `open_images`."""
        count = len(paths[hosts.own_part(len(paths))]) if shared else len(paths)
        pixels = np.empty((count, *size, 3), np.uint8)

        def keep(i, data, image):
            pixels[i] = np.asarray(decoding.resize(image, size))

        visit = decoding.visit_shared if shared else decoding.visit
        decoding.raise_problems(paths, visit(paths, keep, progress))
        self.pixels = hosts.gather_rows(pixels) if shared else pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Gathers batches, as `loaders.Images.batches` says."""
        for indices in index_batches:
            yield self.pixels[indices]
