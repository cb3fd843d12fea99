"""Images that are read from disk on demand, for more images than memory holds."""

import collections
import concurrent.futures
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from reid_jax.data import decoding
from reid_jax.runtime.messages import shown
from reid_jax.runtime.progress import Progress

# Batches that are decoded ahead of the consumer.
_AHEAD = 2


class StreamedImages:
    """Images of which only a few batches at a time are in memory.

    Batches are those of `memory.MemoryImages`, bit for bit. Every file is decoded twice, once to
    check it and once for its batch.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Progress = None,
    ):
        """Read and check every file; arguments and errors are those of `open_images`."""
        self._paths = paths
        self._size = size
        problems = decoding.visit(paths, lambda i, data, image: None, progress)
        decoding.raise_problems(paths, problems)

    def __len__(self) -> int:
        return len(self._paths)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode batches ahead, in order, see `loaders.Images.batches`.

        Threads end with the iterator, whether it is exhausted, closed or garbage-collected.

        Raises:
            ValueError: a file has vanished or changed since it was checked.
        """
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "StreamedImages")
        try:
            waiting: collections.deque = collections.deque()
            for indices in index_batches:
                waiting.append([pool.submit(self._read, i) for i in indices])
                if len(waiting) > _AHEAD:
                    yield _gather(waiting.popleft())
            while waiting:
                yield _gather(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, i: int) -> np.ndarray:
        try:
            with decoding.decoded(self._paths[i]) as (_, image):
                return np.asarray(decoding.resize(image, self._size))
        except Exception as error:  # As `decoding.visit`.
            raise ValueError(
                f"{shown(self._paths[i])} was a good image when it was checked, but now cannot be "
                f"read ({decoding.reason(error)}). Were files changed meanwhile? Start again."
            ) from error


def _gather(pixels: Sequence[concurrent.futures.Future]) -> np.ndarray:
    return np.stack([one.result() for one in pixels])
