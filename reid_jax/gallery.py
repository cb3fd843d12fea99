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

import numpy as np
from numpy.typing import ArrayLike

from reid_jax import gallery_file
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import BLOCK_SIZE, Index, index_gallery
from reid_jax.evaluation.ranking import nearest
from reid_jax.gallery_hits import Hits, reranked
from reid_jax.gallery_images import Images
from reid_jax.gallery_rows import (
    Integers,
    as_descriptors,
    check_finite,
    check_origin,
    check_query_labels,
    passing,
    per_image,
)
from reid_jax.runtime.counts import as_count
from reid_jax.runtime.messages import counted, shown


class Gallery(Images):
    """Descriptors of N images, with identities, cameras and names if these are known.

        gallery = reid_jax.Gallery()

    Threads may add, label, update, remove, search and save at the same time: each search and each
    file sees the gallery at one moment. The descriptors take 4 N D bytes of memory. Adding images
    one by one takes time proportional to their number, also with searches in between, not counting
    the searches themselves. Each update or removal copies all descriptors.

    Attributes:
        origin: the source of the descriptors, any text. `save` stores it.

    Raises:
        ValueError: `origin` is not a text.
    """

    def __init__(self, origin: str = ""):
        check_origin(origin)
        super().__init__()
        self.origin = origin

    def __repr__(self) -> str:
        origin = f", origin={self.origin!r}" if self.origin else ""
        numbers = counted(self.dim, "number")
        return f"<Gallery of {counted(len(self), 'image')}, {numbers} each{origin}>"

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
        rerank: bool = False,
        candidates: int = 200,
        block_size: int = BLOCK_SIZE,
    ) -> Hits:
        """Find the k nearest images of each query.

            gallery.search(model.embed("who.jpg"), k=5)  # among all
            gallery.search(query, cameras=[1, 4], not_cameras=3, identities=range(100))
            gallery.search(query, camids=2, own_camera=False)  # no images from camera 2
            gallery.search(query, pids=pids, camids=camids)  # the usual evaluation protocol
            gallery.search(query, rerank=True)  # re-ranks the nearest 200

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
            rerank: order each query's nearest images by k-reciprocal re-ranking among the query and
                these images, with the defaults of `evaluation.reranking.k_reciprocal`. Distances of
                the result remain Euclidean. Other queries have no effect.
            candidates: with `rerank`, the number of nearest images to re-rank, at least k. Only
                images that pass all filters count.
            block_size: images of the gallery whose scores are in memory at a time, for at most 256
                queries. It affects speed and memory, but not the result.

        Returns:
            The images found, Q rows of k.

        Raises:
            ValueError: shapes or dtypes disagree, a query is not finite or too long, k, candidates
                or block_size is no whole number or below 1, or `pids` or `camids` is given without
                the argument that it needs to take effect.
        """
        rows = as_descriptors(features)
        count = len(rows)
        k, candidates = as_count(k, "k"), as_count(candidates, "candidates")
        block_size = as_count(block_size, "block_size")
        check_query_labels(pids, camids, own_camera)
        labels = per_image(pids, count, "pids"), per_image(camids, count, "camids")
        check_finite(rows)
        with self._lock:
            self._check_dim(rows, "queries")
            # Additions append to this list of names; other changes replace it.
            images, names = self._images(), self._names
            index = self._indexed() if count and len(self) else None
        keep = passing(images, identities, cameras, not_cameras)
        wanted = max(k, min(candidates, len(images.pids))) if rerank else k
        found = np.full((count, wanted), -1, np.int32), np.full((count, wanted), np.inf, "f4")
        if index is not None:
            query = Descriptors(rows, *labels)
            found = nearest(
                query, index, wanted, keep=keep, own_camera=own_camera, block_size=block_size
            )
        if rerank:
            found = _reranked(rows, images, *found)
        return _hits(images, names, *(part[:, :k] for part in found))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the gallery into one file, completely or not at all.

            gallery.save("market.gallery")

        The file is a safetensors file, see `gallery_file`. Its folder is created if necessary.

        Raises:
            OSError: it cannot be written.
            ValueError: `origin` was changed to something else than a text.
        """
        check_origin(self.origin)
        with self._lock:
            arrays = gallery_file.Arrays(
                self.features, self.pids, self.camids, self.names, self.origin
            )
        gallery_file.write(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Gallery":
        """Read a file of `save`. It is briefly in memory twice.

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


def _reranked(
    queries: np.ndarray, images: Descriptors, indices: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Re-rank the images found for each query by themselves."""
    order = np.tile(np.arange(indices.shape[1]), (len(queries), 1))
    for i, query in enumerate(queries):
        found = indices[i][indices[i] >= 0]
        order[i, : len(found)] = reranked(query, images.features[found])
    return np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
