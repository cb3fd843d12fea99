"""Encoded images held in memory, which tf.data decodes and resizes again in every epoch."""

import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from reid_jax.data import decoding
from reid_jax.data.tensorflow_extra import NO_TENSORFLOW
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress

# TensorFlow prints paragraphs when it is imported, unless this is set before.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

try:
    import tensorflow as tf
except Exception as error:  # If versions of packages do not fit, it may be of any type.
    raise ImportError(f"{NO_TENSORFLOW} ({type(error).__name__}: {error})") from error

tf.config.set_visible_devices([], "GPU")  # GPUs are for JAX.

# Fractional bits of a filter's weights, in Pillow and here: 8-bit pixels times weights fit int32.
_BITS = 22
# The largest number of pixels under a triangle for which a filter is compiled. Its sum is unrolled:
# with more pixels it takes seconds to compile, and is not faster than Pillow.
_MOST_TAPS = 8


class EncodedImages:
    """The loader `tfdata` of `loaders.open_images` where decoded images have no room on disk."""

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Progress = None,
        *,
        team: hosts.Team = hosts.ALONE,
    ):
        """Read and check every file; arguments and errors are those of `open_images`."""
        self._size = size
        # The only copy: Python's bytes objects. A batch of them at a time is passed to TensorFlow.
        # A tensor of all would be a second copy, at least while it is created.
        self._encoded: list[bytes] = [b""] * len(paths[team.part(len(paths))])
        shapes = set()

        def keep(i, data, image):
            large = image.width * image.height > decoding.LARGE_PIXELS
            if large:
                # Resize it once: decoding several of them at a time could take any amount of
                # memory.
                image = decoding.resize(image, size)
            if large or not _decodes_to(data, image):
                data = _png(image)
            self._encoded[i] = data
            shapes.add((image.height, image.width))

        decoding.raise_problems(paths, decoding.visit(paths, keep, progress, team))
        self._encoded = team.files(self._encoded)
        shapes = {tuple(shape) for shape in team.values(list(shapes))}
        # The size of all files, if it is the same and not much larger than the target.
        self._shape = None
        if len(shapes) == 1:
            (shape,) = shapes
            if max(len(_filter(*axis)[0]) for axis in zip(shape, size, strict=True)) <= _MOST_TAPS:
                self._shape = shape

    def __len__(self) -> int:
        return len(self._encoded)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode batches ahead, in order, see `loaders.Images.batches`."""
        for size, equal in itertools.groupby(index_batches, key=len):
            yield from self._equal_batches(size, equal)

    def _equal_batches(
        self, size: int, index_batches: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        def encoded():
            for indices in index_batches:
                yield np.array([self._encoded[i] for i in indices], object)

        dataset = tf.data.Dataset.from_generator(
            encoded, output_signature=tf.TensorSpec([size], tf.string)
        ).unbatch()
        if self._shape is None:
            dataset = _map(dataset, lambda data: _resize(_decode(data), self._size))
            dataset = dataset.batch(size, drop_remainder=True)
        else:
            shape = (*self._shape, 3)
            dataset = _map(dataset, lambda data: tf.ensure_shape(_decode(data), shape))
            dataset = dataset.batch(size, drop_remainder=True)
            # Two at a time keep two cores busy, and hold no more batches than that.
            dataset = _map(dataset, lambda batch: _resize_batch(batch, self._size), 2)
        yield from dataset.prefetch(2).as_numpy_iterator()


def _map(dataset, function, parallel=tf.data.AUTOTUNE):
    return dataset.map(function, num_parallel_calls=parallel, deterministic=True)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _decodes_to(data: bytes, image: Image.Image) -> bool:
    """Whether TensorFlow decodes the bytes to the same upright RGB image as Pillow.

    This is tried, because the kind of file does not show it: TensorFlow agrees on nearly all JPEG
    and PNG files, but differs on some damaged ones that both read, and rejects some that Pillow
    reads.
    """
    for start, decode in _DECODERS.items():
        if data.startswith(start):
            try:
                return np.array_equal(decode(data).numpy(), np.asarray(image))
            except tf.errors.OpError:
                return False
    return False


def _decode(data: tf.Tensor) -> tf.Tensor:
    """The pixels of a JPEG or PNG, (h, w, 3) uint8."""
    return tf.cond(tf.io.is_jpeg(data), lambda: _decode_jpeg(data), lambda: _decode_png(data))


def _decode_jpeg(data) -> tf.Tensor:
    # Pillow's discrete cosine transform. TensorFlow's default is a faster one.
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(data) -> tf.Tensor:
    return tf.io.decode_png(data, channels=3)


# The keys are the first bytes of files; `tf.io.is_jpeg` checks the same three bytes.
_DECODERS = {b"\xff\xd8\xff": _decode_jpeg, b"\x89PNG\r\n\x1a\n": _decode_png}


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`decoding.resize` on (h, w, 3) uint8, by Pillow itself: (H, W, 3) uint8.

    TensorFlow's own operations each pass over memory once, and take several times as long.
    """

    def resize(image):
        return np.asarray(decoding.resize(Image.fromarray(image), size))

    return tf.ensure_shape(tf.numpy_function(resize, [image], tf.uint8, stateful=False), (*size, 3))


def _resize_batch(batch: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`decoding.resize` on (B, h, w, 3) uint8, compiled, in the same integers."""
    height, width = size
    # One program per axis: in one for both, XLA would repeat the sums along rows for each of the
    # sums along columns.
    return _compiled(1, height)(_compiled(2, width)(batch))


@functools.cache
def _compiled(axis: int, target: int) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(lambda batch: _resize_axis(batch, axis, target), jit_compile=True)


def _resize_axis(batch: tf.Tensor, axis: int, target: int) -> tf.Tensor:
    """Resize a (B, h, w, 3) uint8 batch to `target` pixels along the axis."""
    if batch.shape[axis] == target:
        return batch
    total = 1 << (_BITS - 1)  # half a grey level, to round
    for index, weight in zip(*_filter(batch.shape[axis], target), strict=True):
        weight = weight.reshape([target if i == axis else 1 for i in range(4)])
        total += tf.cast(tf.gather(batch, index, axis=axis), tf.int32) * weight
    # No weight is negative, and their sum is off by at most T / 2, so no clipping is needed.
    return tf.cast(tf.bitwise.right_shift(total, _BITS), tf.uint8)


def _filter(extent: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights, (T, target) int32, of the T pixels under each output's triangle."""
    scale = extent / target
    reach = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int32), 0)
    index = first + np.arange(math.ceil(2 * reach), dtype=np.int32)[:, None]
    weight = np.maximum(1 - abs(index + 0.5 - centre) / reach, 0)
    weight[index >= extent] = 0
    weight /= weight.sum(axis=0)
    return np.minimum(index, extent - 1), (weight * 2**_BITS + 0.5).astype(np.int32)
