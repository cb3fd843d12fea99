"""Descriptors of known images, to be searched and kept.

    import reid_jax

    model, paths = reid_jax.load("runs/pmm"), ["anna.jpg", "bert.jpg"]
    gallery = reid_jax.Gallery()
    gallery.add(model.embed(paths), names=paths)
    hits = gallery.search(model.embed("who.jpg"), k=5)
    print(hits.names[0], hits.distances[0])

The search is exact, see `evaluation.search`: in the order of float64 distances, of equally near
images the one added first. Distances are computed in blocks, wherever JAX has its devices.
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
from reid_jax.runtime.messages import shown


class Hits(NamedTuple):
    """What `Gallery.search` found: row i is of query i, nearest first.

    Where a query has fewer than k images to find, the row ends with indices -1 at infinity, of
    identity and camera -1, called "".

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
        """Returns the hits that are at most this far; rows end as those with too few images do.

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
    """Descriptors of N images, and who they show where that is known.

        gallery = reid_jax.Gallery()

    Threads may add, label, search and save at the same time: each search and each file is of the
    gallery at one moment. Memory holds the descriptors once, 4 N D bytes. To add images one by one
    takes time in proportion to their number, searches in between included but for their own.

    Attributes:
        origin: what made the descriptors, any text. `save` keeps it.
    """

    def __init__(self, origin: str = ""):
        super().__init__()
        self.origin = origin
        self._index: Index | None = None

    def __repr__(self) -> str:
        origin = f", origin={self.origin!r}" if self.origin else ""
        return f"<Gallery of {len(self):,} images, {self.dim} numbers each{origin}>"

    def add(
        self,
        features: ArrayLike,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Adds images after those that are there. Where it raises, nothing has changed.

            gallery.add(model.embed(paths), names=paths)
            gallery.add(model.embed(crops), pids=[7, 7, 12], camids=2)

        Args:
            features: numbers (N, D), or (D,) for one image; float32 is kept as it is.
            pids: identities, N integers or one for all. None is 0 for all, the field's distractor:
                nobody known. -1 is junk, which no search finds.
            camids: cameras, N integers or one for all. None is 0 for all.
            names: N texts or paths that say which images they are. None is "" for all.

        Raises:
            ValueError: shapes or dtypes disagree, D is not that of the images there, or a
                descriptor is not finite or longer than 1e18.
        """
        rows = as_descriptors(features)
        count = len(rows)
        check_finite(rows)
        labels = per_image(pids, count, "pids"), per_image(camids, count, "camids")
        texts = [""] * count if names is None else as_texts(names)
        if len(texts) != count:
            raise ValueError(f"names must be {count}, one an image, got {len(texts)}")
        with self._lock:
            self._check_dim(rows, "descriptors")
            if count and self._append(rows, *labels, texts):
                self._index = None  # It would keep the old arrays.

    def label(
        self,
        *,
        pids: Integers | None = None,
        camids: Integers | None = None,
    ) -> None:
        """Changes who the images show, or from where. Where it raises, nothing has changed.

            gallery.label(pids=[7, 7, 12])

        Args:
            pids: as in `add`, of all N images; None leaves them.
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
        """Finds the k nearest images of each query.

            gallery.search(model.embed("who.jpg"), k=5)  # among all
            gallery.search(query, cameras=[1, 4], not_cameras=3, identities=range(100))
            gallery.search(query, camids=2, own_camera=False)  # not what camera 2 saw
            gallery.search(query, pids=pids, camids=camids)  # as the field evaluates

        `identities`, `cameras` and `not_cameras` hold for all queries, and copy no descriptors: an
        image must pass all that are given. `pids` and `camids` say of whom and from where each
        query is.

        Args:
            features: numbers (Q, D), or (D,) for one query.
            k: how many images to find of each.
            pids: the queries' identities, Q integers or one for all, and with `camids`: images of
                the query's own identity under its own camera are ignored, but for identities below
                1, which are nobody's.
            camids: the queries' cameras, likewise.
            own_camera: False ignores all images under the query's own camera; needs `camids`.
            identities: find these identities alone.
            cameras: find images under these cameras alone.
            not_cameras: find none under these.
            block_size: images of the gallery whose scores are in memory at a time, for at most 256
                queries. Changes speed and memory, never the result.

        Returns:
            What was found, Q rows of k.

        Raises:
            ValueError: shapes or dtypes disagree, a query is not finite or too long, k or
                block_size is below 1, or one of `pids` and `camids` is given of which nothing
                follows.
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
        """Writes all into one file, whole or not at all.

            gallery.save("market.gallery")

        The file is a safetensors file, see `gallery_file`. The folder it goes to is made.

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
        """Reads what `save` wrote; memory holds it once.

            gallery = reid_jax.Gallery.load("market.gallery")

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read.
            ValueError: it is no such file, or damaged.
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
    """What was found among images with these names."""
    found = indices >= 0
    pids, camids = np.full(indices.shape, -1, np.int64), np.full(indices.shape, -1, np.int64)
    pids[found], camids[found] = images.pids[indices[found]], images.camids[indices[found]]
    rows = tuple(tuple(names[i] if i >= 0 else "" for i in row) for row in indices.tolist())
    return Hits(indices, distances, pids, camids, rows)


def _check_labels(pids, camids, own_camera: bool) -> None:
    """Raises ValueError if one of the queries' labels is given that has no effect alone."""
    if camids is None and (pids is not None or not own_camera):
        raise ValueError("pids and own_camera=False need camids, the queries' cameras")
    if camids is not None and pids is None and own_camera:
        raise ValueError(
            "camids alone change nothing: with pids they ignore images of a query's identity "
            "and camera, with own_camera=False all of its camera; cameras and not_cameras "
            "choose among the gallery's"
        )


def _passing(*filters) -> np.ndarray | None:
    """Which images pass all filters, bool (N,); None is all.

    A filter is the images' labels, those chosen (or None), what they are called, and whether images
    must have one of them, or must not.
    """
    keep = None
    for own, chosen, label, wanted in filters:
        if chosen is not None:
            passes = np.isin(own, as_integers(chosen, label), invert=not wanted)
            keep = passes if keep is None else keep & passes
    return keep
