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

from reid_jax import gallery_file
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import BLOCK_SIZE, Index, index_gallery
from reid_jax.evaluation.ranking import nearest
from reid_jax.runtime.messages import shown

# No descriptor may be longer: squares of the distances between such do not overflow float32.
_LONGEST = 1e18


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


class Gallery:
    """Descriptors of N images, and who they show where that is known.

        gallery = reid_jax.Gallery()

    Memory holds the descriptors once, 4 N D bytes. To add images one by one takes time in
    proportion to their number, searches in between included but for their own.

    Attributes:
        origin: what made the descriptors, any text. `save` keeps it.
    """

    def __init__(self, origin: str = ""):
        self.origin = origin
        self._names: list[str] = []
        self._names_seen: tuple[str, ...] = ()
        self._features = np.empty((0, 0), np.float32)  # (capacity, D); the first N rows are images
        self._pids, self._camids = np.empty(0, np.int64), np.empty(0, np.int64)
        self._index: Index | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        origin = f", origin={self.origin!r}" if self.origin else ""
        return f"<Gallery of {len(self):,} images, {self.dim} numbers each{origin}>"

    @property
    def dim(self) -> int:
        """D, numbers in a descriptor; 0 before any is added."""
        return self._features.shape[1]

    @property
    def features(self) -> np.ndarray:
        """(N, D) float32, read-only, no copy. What is added later is not in it."""
        return _view(self._features, len(self))

    @property
    def pids(self) -> np.ndarray:
        """(N,) int64 identities, read-only; 0 where unknown."""
        return _view(self._pids, len(self))

    @property
    def camids(self) -> np.ndarray:
        """(N,) int64 cameras, read-only; 0 where unknown."""
        return _view(self._camids, len(self))

    @property
    def names(self) -> tuple[str, ...]:
        """N texts."""
        if len(self._names_seen) != len(self):
            self._names_seen = tuple(self._names)
        return self._names_seen

    def add(
        self,
        features: np.ndarray,
        *,
        pids: Sequence[int] | int | None = None,
        camids: Sequence[int] | int | None = None,
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
        features = _rows(features)
        count, dim = features.shape
        if len(self) and dim != self.dim:
            raise ValueError(
                f"descriptors of {dim} numbers do not go with this gallery's, of {self.dim}: "
                "describe all images with the same network"
            )
        _check_finite(features)
        pids, camids = _per_image(pids, count, "pids"), _per_image(camids, count, "camids")
        names = [""] * count if names is None else _texts(names)
        if len(names) != count:
            raise ValueError(f"names must be {count}, one an image, got {len(names)}")
        if not count:
            return
        before, after = len(self), len(self) + count
        arrays = [self._features, self._pids, self._camids]
        if not before:  # An empty gallery has yet to learn D.
            arrays[0] = np.empty((0, dim), np.float32)
        if after > len(arrays[0]):
            self._index = None  # It would keep the old array.
            arrays = [_grown(array, before, max(after, 2 * before)) for array in arrays]
        for array, new in zip(arrays, (features, pids, camids), strict=True):
            array[before:after] = new
        self._features, self._pids, self._camids = arrays
        self._names.extend(names)

    def label(
        self,
        *,
        pids: Sequence[int] | int | None = None,
        camids: Sequence[int] | int | None = None,
    ) -> None:
        """Changes who the images show, or from where. Where it raises, nothing has changed.

            gallery.label(pids=[7, 7, 12])

        Args:
            pids: as in `add`, of all N images; None leaves them.
            camids: likewise.

        Raises:
            ValueError: as `add`.
        """
        count = len(self)
        labels = [self.pids, self.camids]
        for i, (given, name) in enumerate(((pids, "pids"), (camids, "camids"))):
            if given is not None:
                labels[i] = _per_image(given, count, name)
        # New arrays: views of the old ones, as an index has, stay what they are.
        self._pids, self._camids = (_grown(label, count, len(self._features)) for label in labels)
        self._index = None

    def search(
        self,
        features: np.ndarray,
        k: int = 10,
        *,
        pids: Sequence[int] | int | None = None,
        camids: Sequence[int] | int | None = None,
        own_camera: bool = True,
        identities: Sequence[int] | int | None = None,
        cameras: Sequence[int] | int | None = None,
        not_cameras: Sequence[int] | int | None = None,
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
        features = _rows(features)
        count = len(features)
        if k < 1 or block_size < 1:
            raise ValueError(f"k and block_size must be at least 1, got {k} and {block_size}")
        if camids is None and (pids is not None or not own_camera):
            raise ValueError("pids and own_camera=False need camids, the queries' cameras")
        if camids is not None and pids is None and own_camera:
            raise ValueError(
                "camids alone change nothing: with pids they ignore images of a query's identity "
                "and camera, with own_camera=False all of its camera; cameras and not_cameras "
                "choose among the gallery's"
            )
        pids, camids = _per_image(pids, count, "pids"), _per_image(camids, count, "camids")
        _check_finite(features)
        if len(self) and features.shape[1] != self.dim:
            raise ValueError(
                f"queries of {features.shape[1]} numbers do not go with this gallery's images, of "
                f"{self.dim}: describe them with the same network"
            )
        keep = self._keep(identities, cameras, not_cameras)
        if count and len(self):
            indices, distances = nearest(
                Descriptors(features, pids, camids),
                self._indexed(),
                k,
                keep=keep,
                own_camera=own_camera,
                block_size=block_size,
            )
        else:
            indices = np.full((count, k), -1, np.int32)
            distances = np.full((count, k), np.inf, np.float32)
        return self._hits(indices, distances)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all into one file, whole or not at all.

            gallery.save("market.gallery")

        The file is a safetensors file, see `gallery_file`. The folder it goes to is made.

        Raises:
            OSError: it cannot be written.
        """
        arrays = gallery_file.Arrays(self.features, self.pids, self.camids, self.names, self.origin)
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
            _check_finite(arrays.features)
        except ValueError as error:
            raise ValueError(f"{shown(path)} is damaged: {error}") from None
        gallery._features = arrays.features
        gallery._pids, gallery._camids = arrays.pids, arrays.camids
        gallery._names = list(arrays.names)
        return gallery

    def _indexed(self) -> Index:
        if self._index is None or len(self._index.gallery.pids) != len(self):
            descriptors = Descriptors(self.features, self.pids, self.camids)
            self._index = index_gallery(descriptors, self._index)
        return self._index

    def _keep(self, identities, cameras, not_cameras) -> np.ndarray | None:
        """Which images pass all filters, bool (N,); None is all."""
        keep = None
        for own, chosen, label, wanted in (
            (self.pids, identities, "identities", True),
            (self.camids, cameras, "cameras", True),
            (self.camids, not_cameras, "not_cameras", False),
        ):
            if chosen is not None:
                passes = np.isin(own, _integers(chosen, label), invert=not wanted)
                keep = passes if keep is None else keep & passes
        return keep

    def _hits(self, indices: np.ndarray, distances: np.ndarray) -> Hits:
        found = indices >= 0
        pids, camids = np.full(indices.shape, -1, np.int64), np.full(indices.shape, -1, np.int64)
        pids[found], camids[found] = self._pids[indices[found]], self._camids[indices[found]]
        names = tuple(
            tuple(self._names[i] if i >= 0 else "" for i in row) for row in indices.tolist()
        )
        return Hits(indices, distances, pids, camids, names)


def _view(array: np.ndarray, count: int) -> np.ndarray:
    view = array[:count]
    view.flags.writeable = False
    return view


def _grown(array: np.ndarray, count: int, capacity: int) -> np.ndarray:
    """An array of a new length with the first rows of this one; what follows takes no memory yet.

    The old one is left as it is, for those who hold a view of it.
    """
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[:count] = array[:count]
    return grown


def _rows(features) -> np.ndarray:
    """Descriptors as float32 (N, D)."""
    array = np.asarray(features)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"descriptors must be numbers (images, dimensions), got {array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # What float32 does not hold is infinite, and refused.
        return array.astype(np.float32, copy=False)


def _check_finite(features: np.ndarray) -> None:
    """Raises ValueError where a descriptor holds NaN or infinity, or is too long."""
    if not len(features):
        return
    # The extremes show it without a mask as large as the descriptors; NaN is no number's equal.
    largest = max(features.max(), -features.min())
    if not largest * np.sqrt(features.shape[1]) <= _LONGEST:
        lengths = (np.linalg.norm(row.astype(np.float64)) for row in features)
        bad = next((i for i, length in enumerate(lengths) if not length <= _LONGEST), None)
        if bad is not None:
            raise ValueError(
                f"descriptor {bad} holds NaN or infinity or is longer than {_LONGEST:g}: check the "
                "network"
            )


def _integers(given, label: str) -> np.ndarray:
    array = np.asarray(list(given) if isinstance(given, set | frozenset) else given)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim > 1 or array.dtype.kind not in "iu" or array.dtype == np.uint64:
        raise ValueError(f"{label} must be integers, got {array.dtype} {array.shape}")
    return np.atleast_1d(array).astype(np.int64, copy=False)


def _per_image(given, count: int, label: str) -> np.ndarray:
    """One integer an image, int64 (count,): those given, or one for all."""
    if given is None:
        return np.zeros(count, np.int64)
    array = _integers(given, label)
    if np.ndim(given) == 0:
        return np.broadcast_to(array, count)
    if len(array) != count:
        raise ValueError(f"{label} must be {count} integers, one an image, got {len(array)}")
    return array


def _texts(names: Sequence[str | os.PathLike[str]]) -> list[str]:
    if isinstance(names, str | bytes):
        raise ValueError("names must be several texts, one an image, got a single one")
    try:
        return [os.fsdecode(name) for name in names]
    except TypeError as error:
        raise ValueError(f"names must be texts or paths: {error}") from None
