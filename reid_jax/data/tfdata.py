"""Images delivered by tf.data: decoded once for all runs where the disk has room."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from reid_jax.data.encoded import EncodedImages, tf
from reid_jax.data.pixel_file import open_pixels
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress

#: The share of the free disk space that decoded images may take.
SHARE = 0.5


class TfdataImages:
    """The loader `tfdata` of `loaders.open_images`.

    The first run keeps decoded pixels in the file that the loader `disk` also uses, see
    `pixel_file`; tf.data gathers batches from it, ahead of the consumer. If the file would take
    more than half of the free disk space, or cannot be written, the images are `EncodedImages`,
    and `progress` gets the reason.
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
        self._count = len(paths)
        self._encoded = None
        try:
            pixels = open_pixels(paths, size, progress, team=team, share=SHARE)
        except OSError as error:
            if progress:
                progress(f"{error}: images are decoded again in every epoch")
            self._encoded = EncodedImages(paths, size, progress, team=team)
        else:
            # The same memory, as a tensor.
            lent = np.asarray(_Lent(pixels))
            self._pixels = tf.experimental.dlpack.from_dlpack(lent.__dlpack__())

    def __len__(self) -> int:
        return self._count

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Gather batches ahead, in order, see `loaders.Images.batches`."""
        if self._encoded is not None:
            yield from self._encoded.batches(index_batches)
            return
        indices = tf.data.Dataset.from_generator(
            lambda: index_batches, output_signature=tf.TensorSpec([None], tf.int32)
        )
        gathered = indices.map(lambda batch: tf.gather(self._pixels, batch))
        options = tf.data.Options()
        # To optimize, TensorFlow would copy all pixels into memory at the start of each iteration.
        options.experimental_optimization.apply_default_optimizations = False
        # Gathering is copying: more threads would only take time from the network's.
        options.threading.private_threadpool_size = 1
        options.threading.max_intra_op_parallelism = 1
        yield from gathered.prefetch(1).with_options(options).as_numpy_iterator()


class _Lent:
    """Read-only memory for TensorFlow, which only reads; NumPy lends it no read-only arrays."""

    def __init__(self, array: np.ndarray):
        self._array = array  # Keeps the memory while an array of it exists.
        place = array.__array_interface__["data"][0]
        self.__array_interface__ = {**array.__array_interface__, "data": (place, False)}
