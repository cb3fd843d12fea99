"""Encoded images held in memory, decoded and resized by tf.data while a network trains."""

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from reid_jax.data import images

# TensorFlow prints paragraphs about itself as it is imported, unless told before.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

try:
    import tensorflow as tf
except ImportError as error:
    raise ImportError(
        "data.loader='tfdata' needs TensorFlow, which cannot be imported here: "
        "use --config.data.loader=memory, or install tensorflow"
    ) from error

# Fractional bits of a filter's weights, in Pillow and here: 8-bit pixels times weights fit int32.
_BITS = 22


class TfdataImages:
    """The loader `tfdata` of `images.open_images`."""

    def __init__(
        self,
        paths: Sequence[str],
        size: tuple[int, int],
        progress: Callable[[str], object] | None = None,
    ):
        """Reads and checks every file; arguments and errors are those of `open_images`."""
        tf.config.set_visible_devices([], "GPU")  # They are JAX's.
        self._size = size
        # The one copy: Python's own bytes objects, of which a batch's are handed to TensorFlow at a
        # time. A tensor of all would be a second copy, while it is made at least.
        self._encoded: list[bytes] = [b""] * len(paths)

        def keep(i, data, image):
            self._encoded[i] = data if images.is_plain(image) else _png(images.to_rgb(image))

        images.visit(paths, keep, progress)

    def __len__(self) -> int:
        return len(self._encoded)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decodes batches ahead, in order, as `images.Images.batches` says."""
        index_batches = iter(index_batches)
        first = next(index_batches, None)
        if first is None:
            return

        def encoded():
            for indices in itertools.chain([first], index_batches):
                yield np.array([self._encoded[i] for i in indices], object)

        dataset = (
            tf.data.Dataset.from_generator(
                encoded, output_signature=tf.TensorSpec([len(first)], tf.string)
            )
            .unbatch()
            .map(
                lambda data: _resize(_decode(data), *self._size),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .batch(len(first), drop_remainder=True)
            .prefetch(2)
        )
        yield from dataset.as_numpy_iterator()


def _png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _decode(data: tf.Tensor) -> tf.Tensor:
    """A plain file's pixels, (h, w, 3) int32."""
    return tf.cast(
        tf.cond(
            tf.io.is_jpeg(data),
            # Pillow's discrete cosine transform. TensorFlow's default is the fast one.
            lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(data, channels=3),
        ),
        tf.int32,
    )


def _resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """`images.resize` on (h, w, 3) int32, in the same integers: (height, width, 3) uint8."""
    index, weight = _filter(tf.shape(image)[1], width)
    taps = tf.gather(image, index, axis=1)  # (h, width, T, 3)
    image = _round(tf.reduce_sum(taps * weight[None, :, :, None], axis=2))
    index, weight = _filter(tf.shape(image)[0], height)
    taps = tf.gather(image, index, axis=0)  # (height, T, width, 3)
    image = _round(tf.reduce_sum(taps * weight[:, :, None, None], axis=1))
    return tf.ensure_shape(tf.cast(image, tf.uint8), (height, width, 3))


def _filter(extent: tf.Tensor, target: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Indices and weights, (target, T) int32, of the pixels under each output pixel's triangle."""
    scale = tf.cast(extent, tf.float64) / target
    reach = tf.maximum(scale, 1.0)
    centre = (tf.range(target, dtype=tf.float64)[:, None] + 0.5) * scale
    first = tf.maximum(tf.cast(centre - reach + 0.5, tf.int32), 0)
    index = first + tf.range(tf.cast(tf.math.ceil(2 * reach), tf.int32))
    weight = tf.maximum(1 - tf.abs(tf.cast(index, tf.float64) + 0.5 - centre) / reach, 0)
    weight = tf.where(index < extent, weight, 0)
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    fixed = tf.cast(weight * 2**_BITS + 0.5, tf.int32)
    return tf.minimum(index, extent - 1), fixed


def _round(total: tf.Tensor) -> tf.Tensor:
    """Sums of pixels times weights to whole grey levels; an overshoot by rounded weights is cut."""
    return tf.clip_by_value(tf.bitwise.right_shift(total + (1 << (_BITS - 1)), _BITS), 0, 255)
