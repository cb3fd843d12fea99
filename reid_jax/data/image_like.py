"""Images that a caller passes: paths of files, or pixels of any size."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from reid_jax.data import decoding, loaders
from reid_jax.data.memory import MemoryImages
from reid_jax.data.streamed import StreamedImages
from reid_jax.runtime.files import local_path
from reid_jax.runtime.progress import Progress

Path = str | os.PathLike[str]
#: The types that `as_images` accepts.
ImageLike = Path | np.ndarray | Image.Image
ImagesLike = ImageLike | Iterable[ImageLike]

# Up to this number of bytes of pixels, files are decoded once and held; above it, twice.
_HELD = 2**28


def as_images(
    images: ImagesLike, size: tuple[int, int], progress: Progress = None
) -> loaders.Images:
    """Images of one size, in the order given.

    Args:
        images: a path or paths of files as `loaders.open_images` takes them; or uint8 RGB,
            (H, W, 3), (N, H, W, 3) or several (H, W, 3), each of any size; or one or several
            images of Pillow.
        size: (H, W), pixels, to which each is resized as files are.
        progress: as in `loaders.open_images`.

    Raises:
        ValueError: files are bad, see `decoding.raise_problems`; or an image of Pillow is; or
            `images` are neither paths nor pixels, or partly paths and partly pixels.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        given: list[Any] = [images]
    elif hasattr(images, "shape"):
        array = np.asarray(images)
        array = array[None] if array.ndim == 3 else array
        if array.dtype == np.uint8 and array.shape[1:] == (*size, 3):
            return _SizedImages(array)
        given = list(array) if array.ndim in (1, 4) else [array]
    elif isinstance(images, Iterable) and not isinstance(images, bytes):
        given = list(images)
    else:
        raise ValueError(
            f"images are of type {type(images).__name__}; they must be paths, uint8 RGB pixels or "
            "images of Pillow, one or several"
        )
    paths = [isinstance(one, str | os.PathLike) for one in given]
    if not all(paths):
        if any(paths):
            raise ValueError("images are paths or pixels, not some of both")
        return _ArrayImages([_checked(i, one) for i, one in enumerate(given)], size)
    pixels = len(paths) * size[0] * size[1] * 3
    loader = MemoryImages if pixels <= _HELD else StreamedImages
    return loader([local_path(path, "an image's path") for path in given], size, progress)


def _checked(i: int, pixels) -> np.ndarray:
    try:
        if isinstance(pixels, Image.Image):
            pixels = decoding.to_rgb(pixels)
        array = np.asarray(pixels)
    except Exception as error:  # Pillow and NumPy raise several types.
        raise ValueError(f"image {i} cannot be read ({decoding.reason(error)})") from error
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"image {i} is {array.dtype} {array.shape}; it must be a path, an image of "
            "Pillow, or pixels: uint8 RGB (H, W, 3)"
        )
    return array


class _SizedImages:
    """Pixels (N, H, W, 3) of the size asked for."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `loaders.Images.batches`."""
        for indices in index_batches:
            yield self._pixels[indices]


class _ArrayImages:
    """Pixels that are resized on demand."""

    def __init__(self, arrays: Sequence[np.ndarray], size: tuple[int, int]):
        self._arrays = arrays
        self._size = size

    def __len__(self) -> int:
        return len(self._arrays)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `loaders.Images.batches`."""
        for indices in index_batches:
            yield np.stack([self._resized(self._arrays[i]) for i in indices])

    def _resized(self, array: np.ndarray) -> np.ndarray:
        if array.shape[:2] == self._size:
            return array
        return np.asarray(decoding.resize(Image.fromarray(array), self._size))
