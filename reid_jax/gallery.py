"""A searchable collection of descriptors of images, which can be saved to a file.

    import reid_jax

    model, paths = reid_jax.load("runs/pmm"), ["anna.jpg", "bert.jpg"]
    gallery = reid_jax.Gallery()
    gallery.add(model.embed(paths), names=paths)
    hits = gallery.search(model.embed("who.jpg"), k=5)
    print(hits.names[0], hits.distances[0])

The search is exact, see `evaluation.ranking`: it orders by float64 distances, and equally near
images by when they were added. Distances are computed in blocks, on JAX's default device.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reid_jax import gallery_file
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import BLOCK_SIZE, Index, index_gallery
from reid_jax.evaluation.ranking import nearest
from reid_jax.gallery_rows import (
    Integers,
    Rows,
    as_descriptors,
    as_integers,
    as_texts,
    check_finite,
    per_image,
)
from reid_jax.runtime.messages import counted, shown


class Hits(NamedTuple):
    """The result of `Gallery.search`: row i belongs to query i, nearest first.

    If there are fewer than k images to find for a query, the row is filled up with index -1, an
    infinite distance, identity and camera -1, and the name "".

    Attributes:
        indices: int32 (Q, k), in the order in which the gallery's images were added.
        distances: float32 (Q, k), Euclidean.
        pids: int64 (Q, k), identities.
        camids: int64 (Q, k), cameras.
        names: Q tuples of k texts.
    """

    indices: np.ndarray
    distances: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    names: tuple[tuple[str, ...], ...]

    def within(self, distance: float) -> "Hits":
        """Keep the hits up to a distance; the end of each row is as if there were no more images.

            hits = gallery.search(model.embed("who.jpg")).within(model.threshold(fpr=1e-3))

        Raises:
            ValueError: the distance is negative or not a number.
        """
        if not distance >= 0:
            raise ValueError(f"distance is {distance}; it must be a number of at least 0")
        near = self.distances <= distance
        pids, camids = (np.where(near, labels, -1) for labels in (self.pids, self.camids))
        names = tuple(
            tuple(name if kept else "" for name, kept in zip(row, flags, strict=True))
            for row, flags in zip(self.names, near.tolist(), strict=True)
        )
        return Hits(
            np.where(near, self.indices, np.int32(-1)),
            np.where(near, self.distances, np.float32(np.inf)),
            pids,
            camids,
            names,
        )


class Gallery(Rows):
    """Descriptors of N images, with identities, cameras and names if these are known.

        gallery = reid_jax.Gallery()

    Threads may add, label, search and save at the same time: each search and each file sees the
    gallery at one moment. The descriptors take 4 N D bytes of memory. Adding images one by one
    takes time proportional to their number, also with searches in between, not counting the
    searches themselves.

    Attributes:
        origin: the source of the descriptors, any text. `save` stores it.
    """

    def __init__(self, origin: str = ""):
        super().__init__()
        self.origin = origin
        self._index: Index | None = None

    def __repr__(self) -> str:
        origin = f", origin={self.origin!r}" if self.origin else ""
        numbers = counted(self.dim, "number")
        return f"<Gallery of {counted(len(self), 'image')}, {numbers} each{origin}>"

    def add(
        self,
        features: ArrayLike,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add images after the existing ones. If an error is raised, the gallery is unchanged.

            gallery.add(model.embed(paths), names=paths)
            gallery.add(model.embed(crops), pids=[7, 7, 12], camids=2)

        Args:
            features: numbers (N, D), or (D,) for one image; float32 is stored unchanged.
            pids: identities, N integers or one for all. None means 0 for all, an unknown person (a
                distractor in re-ID data sets). -1 is junk, which no search finds.
            camids: cameras, N integers or one for all. None means 0 for all.
            names: N texts or paths that identify the images. None means "" for all.

        Raises:
            ValueError: shapes or dtypes disagree, D is not that of the existing images, or a
                descriptor is not finite or longer than 1e18.
        """
        rows = as_descriptors(features)
        count = len(rows)
        check_finite(rows)
        labels = per_image(pids, count, "pids"), per_image(camids, count, "camids")
        texts = [""] * count if names is None else as_texts(names)
        if len(texts) != count:
            raise ValueError(f"names must be {count}, one per image, got {len(texts)}")
        with self._lock:
            self._check_dim(rows, "descriptors")
            if count and self._append(rows, *labels, texts):
                self._index = None  # It would keep the old arrays in memory.

    def label(
        self,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
    ) -> None:
        """Change identities or cameras. If an error is raised, the gallery is unchanged.

            gallery.label(pids=[7, 7, 12])

        Args:
            pids: as in `add`, for all N images; None leaves them unchanged.
            camids: likewise.

        Raises:
            ValueError: as `add`.
        """
        with self._lock:
            count = len(self)
            labels = [self.pids, self.camids]
            for i, (given, name) in enumerate(((pids, "pids"), (camids, "camids"))):
                if given is not None:
                    labels[i] = per_image(given, count, name)
            self._relabel(*labels)
            self._index = None

    def search(
        self,
        features: ArrayLike,
        k: int = 10,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        own_camera: bool = True,
        identities: Integers | None = None,
        cameras: Integers | None = None,
        not_cameras: Integers | None = None,
        block_size: int = BLOCK_SIZE,
    ) -> Hits:
        """Find the k nearest images of each query.

            gallery.search(model.embed("who.jpg"), k=5)  # among all
            gallery.search(query, cameras=[1, 4], not_cameras=3, identities=range(100))
            gallery.search(query, camids=2, own_camera=False)  # no images from camera 2
            gallery.search(query, pids=pids, camids=camids)  # the usual evaluation protocol

        `identities`, `cameras` and `not_cameras` apply to all queries and copy no descriptors. An
        image must pass all filters that are given. `pids` and `camids` are the identity and camera
        of each query.

        Args:
            features: numbers (Q, D), or (D,) for one query.
            k: number of images to find for each query.
            pids: the queries' identities, Q integers or one for all. With `camids`, images of the
                query's own identity from its own camera are ignored. Identities below 1 are
                unknown, so for these no image is ignored.
            camids: the queries' cameras, Q integers or one for all.
            own_camera: False ignores all images from the query's own camera; needs `camids`.
            identities: find only these identities.
            cameras: find only images from these cameras.
            not_cameras: find no images from these cameras.
            block_size: images of the gallery whose scores are in memory at a time, for at most 256
                queries. It affects speed and memory, but not the result.

        Returns:
            The images found, Q rows of k.

        Raises:
            ValueError: shapes or dtypes disagree, a query is not finite or too long, k or
                block_size is below 1, or `pids` or `camids` is given without the argument that it
                needs to take effect.
        """
        rows = as_descriptors(features)
        count = len(rows)
        if k < 1 or block_size < 1:
            raise ValueError(f"k and block_size must be at least 1, got {k} and {block_size}")
        _check_labels(pids, camids, own_camera)
        labels = per_image(pids, count, "pids"), per_image(camids, count, "camids")
        check_finite(rows)
        with self._lock:
            self._check_dim(rows, "queries")
            images, index = self._images(), self._indexed() if count and len(self) else None
        keep = _passing(
            (images.pids, identities, "identities", True),
            (images.camids, cameras, "cameras", True),
            (images.camids, not_cameras, "not_cameras", False),
        )
        indices, distances = np.full((count, k), -1, np.int32), np.full((count, k), np.inf, "f4")
        if index is not None:
            query = Descriptors(rows, *labels)
            indices, distances = nearest(
                query, index, k, keep=keep, own_camera=own_camera, block_size=block_size
            )
        return _hits(images, self._names, indices, distances)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the gallery into one file, completely or not at all.

            gallery.save("market.gallery")

        The file is a safetensors file, see `gallery_file`. Its folder is created if necessary.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            arrays = gallery_file.Arrays(
                self.features, self.pids, self.camids, self.names, self.origin
            )
        gallery_file.write(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Gallery":
        """Read a file of `save`. Memory holds it once.

            gallery = reid_jax.Gallery.load("market.gallery")

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read.
            ValueError: the file is not one of `save`, or it is damaged.
        """
        arrays = gallery_file.read(path)
        gallery = cls(arrays.origin)
        try:
            check_finite(arrays.features)
        except ValueError as error:
            raise ValueError(f"{shown(path)} is damaged: {error}") from None
        gallery._take(arrays.features, arrays.pids, arrays.camids, arrays.names)
        return gallery

    def _indexed(self) -> Index:
        if self._index is None or len(self._index.gallery.pids) != len(self):
            self._index = index_gallery(self._images(), self._index)
        return self._index


def _hits(
    images: Descriptors, names: Sequence[str], indices: np.ndarray, distances: np.ndarray
) -> Hits:
    """The images found, out of those with these names."""
    found = indices >= 0
    pids, camids = np.full(indices.shape, -1, np.int64), np.full(indices.shape, -1, np.int64)
    pids[found], camids[found] = images.pids[indices[found]], images.camids[indices[found]]
    rows = tuple(tuple(names[i] if i >= 0 else "" for i in row) for row in indices.tolist())
    return Hits(indices, distances, pids, camids, rows)


def _check_labels(pids, camids, own_camera: bool) -> None:
    """Raise ValueError if the queries' pids or camids are given, but have no effect."""
    if camids is None and (pids is not None or not own_camera):
        raise ValueError("pids and own_camera=False need camids, the queries' cameras")
    if camids is not None and pids is None and own_camera:
        raise ValueError(
            "camids have no effect without pids or own_camera=False: with pids, images of a "
            "query's identity and camera are ignored, with own_camera=False all images of its "
            "camera. To select cameras of the gallery, use cameras and not_cameras"
        )


def _passing(*filters) -> np.ndarray | None:
    """Mark the images that pass all filters, bool (N,); None means all.

    A filter consists of the images' labels, the selected labels (or None), the name of the labels,
    and whether images must have one of them or must not.
    """
    keep = None
    for own, chosen, label, wanted in filters:
        if chosen is not None:
            passes = np.isin(own, as_integers(chosen, label), invert=not wanted)
            keep = passes if keep is None else keep & passes
    return keep
