"""The content of a `Gallery` in memory, and conversions of arguments from callers."""

import collections
import itertools
import math
import os
import threading
from collections.abc import Collection, KeysView, Sequence, Set, ValuesView
from typing import TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.runtime.messages import shown

#: Identities or cameras: an array of integers, a list, a range, a set, or one integer.
Integers: TypeAlias = ArrayLike | Collection[int]

# The largest length of a descriptor: squared distances between such do not overflow float32.
_LONGEST = 1e18


class Rows:
    """Descriptors, identities, cameras and names of N images, which can be changed.

    The arrays have room for more rows than there are images, so appending images one by one takes
    time proportional to their number. Other changes make new arrays and a new list of names.
    Threads that change them, or read several together, hold `_lock`.
    """

    def __init__(self):
        self._lock = threading.RLock()
        # (capacity, D) and (capacity,); the first N rows are images.
        self._features: np.ndarray = np.empty((0, 0), np.float32)
        self._pids: np.ndarray = np.empty(0, np.int64)
        self._camids: np.ndarray = np.empty(0, np.int64)
        self._names: list[str] = []
        self._names_seen: tuple[str, ...] = ()

    def __getstate__(self) -> dict:
        with self._lock:
            rows = {
                "_features": self.features.copy(),
                "_pids": self.pids.copy(),
                "_camids": self.camids.copy(),
                "_names": list(self._names),
            }
            # A copy computes its own search index.
            return self.__dict__ | rows | {"_lock": None, "_index": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def _images(self) -> Descriptors:
        """The images as they are now, unaffected by later additions and changes."""
        return Descriptors(self.features, self.pids, self.camids)

    def _take(
        self, features: np.ndarray, pids: np.ndarray, camids: np.ndarray, names: Sequence[str]
    ) -> None:
        """Replace all images by these: (N, D) float32, (N,) int64, (N,) int64 and N texts."""
        self._features, self._pids, self._camids = features, pids, camids
        self._names, self._names_seen = list(names), ()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def dim(self) -> int:
        """D, the length of the descriptors; 0 while the gallery is empty."""
        return self._features.shape[1]

    @property
    def features(self) -> np.ndarray:
        """(N, D) float32, read-only, without a copy. Later changes are not in it."""
        with self._lock:
            return _view(self._features, len(self))

    @property
    def pids(self) -> np.ndarray:
        """(N,) int64 identities, read-only; 0 means unknown."""
        with self._lock:
            return _view(self._pids, len(self))

    @property
    def camids(self) -> np.ndarray:
        """(N,) int64 cameras, read-only; 0 means unknown."""
        with self._lock:
            return _view(self._camids, len(self))

    @property
    def names(self) -> tuple[str, ...]:
        """N texts."""
        with self._lock:
            if len(self._names_seen) != len(self):
                self._names_seen = tuple(self._names)
            return self._names_seen

    def _check_dim(self, features: np.ndarray, what: str) -> None:
        """Raise ValueError if descriptors, named `what`, have another length than those here."""
        if len(self) and features.shape[1] != self.dim:
            raise ValueError(
                f"{what} of {features.shape[1]} numbers do not match this gallery's images, of "
                f"{self.dim}: describe all images with the same network"
            )

    def _append(
        self, features: np.ndarray, pids: np.ndarray, camids: np.ndarray, names: Sequence[str]
    ) -> bool:
        """Append n images.

        Args:
            features: float32 (n, D), n at least 1.
            pids: int64 (n,).
            camids: int64 (n,).
            names: n texts.

        Returns:
            Whether the images are now in new arrays.
        """
        before, after = len(self), len(self) + len(features)
        arrays: list[np.ndarray] = [self._features, self._pids, self._camids]
        if not before:  # D is known only now.
            arrays[0] = np.empty((0, features.shape[1]), np.float32)
        grows = after > len(arrays[0])
        if grows:
            arrays = [_grown(array, before, max(after, 2 * before)) for array in arrays]
        for array, new in zip(arrays, (features, pids, camids), strict=True):
            array[before:after] = new
        self._features, self._pids, self._camids = arrays
        self._names.extend(names)
        return grows

    def _relabel(self, pids: np.ndarray, camids: np.ndarray) -> None:
        """Replace all identities and cameras, (N,) int64. Views of the old ones do not change."""
        capacity = len(self._features)
        self._pids, self._camids = (_grown(x, len(self), capacity) for x in (pids, camids))

    def _replace(
        self,
        places: np.ndarray,
        features: np.ndarray,
        pids: np.ndarray | None,
        camids: np.ndarray | None,
    ) -> None:
        """Replace the rows at some places; labels that are None remain. Views do not change."""
        arrays: list[np.ndarray] = [self._features, self._pids, self._camids]
        for i, new in enumerate((features, pids, camids)):
            if new is not None and len(places):
                arrays[i] = _grown(arrays[i], len(self), len(arrays[i]))
                arrays[i][places] = new
        self._features, self._pids, self._camids = arrays

    def _keep(self, kept: np.ndarray) -> None:
        """Keep only some images, bool (N,). Views of all images do not change."""
        self._take(
            self.features[kept] if kept.any() else np.empty((0, 0), np.float32),
            self.pids[kept],
            self.camids[kept],
            list(itertools.compress(self._names, kept)),
        )

    def _places(self, names: Sequence[str], *, once: bool = False) -> np.ndarray:
        """Return the places of the images with some names, int64, in the order of the names.

        Raises:
            ValueError: no image has one of the names; or with `once`, several images have one or
                it is given twice.
        """
        places: dict[str, list[int]] = {name: [] for name in names}
        for place, name in enumerate(self._names):
            if name and name in places:
                places[name].append(place)
        check_named(names, {name: len(found) for name, found in places.items()}, once)
        return np.array(list(itertools.chain(*places.values())), np.int64)


def _view(array: np.ndarray, count: int) -> np.ndarray:
    view = array[:count]
    view.flags.writeable = False
    return view


def _grown(array: np.ndarray, count: int, capacity: int) -> np.ndarray:
    """Copy the first rows to an array of a new length; the rest takes no memory yet.

    The old array is unchanged, because callers may hold a view of it.
    """
    grown = _empty((capacity, *array.shape[1:]), array.dtype)
    grown[:count] = array[:count]
    return grown


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that JAX reads on CPUs without a copy, because it begins at a multiple of 64."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def as_descriptors(features: ArrayLike) -> np.ndarray:
    """Convert descriptors to float32 (N, D)."""
    array = _array(features, "descriptors")
    if array.ndim == 1:
        array = array[None]
    if array.dtype == ml_dtypes.bfloat16:  # No number to NumPy.
        array = array.astype(np.float32)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"descriptors must be numbers (images, dimensions), got {array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # Values too large for float32 become infinite: an error.
        return array.astype(np.float32, copy=False)


def _array(given: ArrayLike | Collection[int], label: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as error:  # Rows of several lengths.
        raise ValueError(f"{label} are not an array: {error}") from None


def check_finite(features: np.ndarray) -> None:
    """Raise ValueError if a descriptor holds NaN or infinity, or is too long."""
    if not len(features):
        return
    # The extremes show it without a mask as large as the descriptors. NaN fails comparisons.
    largest = max(features.max(), -features.min())
    if not largest * np.sqrt(features.shape[1]) <= _LONGEST:
        lengths = (np.linalg.norm(row.astype(np.float64)) for row in features)
        bad = next((i for i, length in enumerate(lengths) if not length <= _LONGEST), None)
        if bad is not None:
            raise ValueError(
                f"descriptor {bad} holds NaN or infinity or is longer than {_LONGEST:g}: check the "
                "network"
            )


def as_integers(given: Integers, label: str) -> np.ndarray:
    """Convert integers to int64 (n,). Raise ValueError, naming `label`, for anything else."""
    array = _array(list(given) if isinstance(given, Set | ValuesView) else given, label)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim > 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{label} must be integers, got {array.dtype} {array.shape}")
    if array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"{label} must be at most 2^63 - 1, got {array.max()}")
    return np.atleast_1d(array).astype(np.int64, copy=False)


def per_image(given: Integers | None, count: int, label: str) -> np.ndarray:
    """Return one integer per image, int64 (count,): those given, or one repeated for all."""
    if given is None:
        return np.zeros(count, np.int64)
    _check_ordered(given, label)
    array = as_integers(given, label)
    if isinstance(given, int | np.integer) or getattr(given, "ndim", 1) == 0:
        return np.broadcast_to(array, count)
    if len(array) != count:
        raise ValueError(f"{label} must be {count} integers, one per image, got {len(array)}")
    return array


def as_names(names: Sequence[str | os.PathLike[str]] | None, count: int | None = None) -> list[str]:
    """Convert names to texts, `count` of them if that is given; None means "" for all.

    Raises:
        ValueError: they are anything else, or of another number; or with `count`, a set.
    """
    if count is not None:
        _check_ordered(names, "names")
    texts = [""] * (count or 0) if names is None else as_texts(names)
    if count is not None and len(texts) != count:
        raise ValueError(f"names must be {count}, one per image, got {len(texts)}")
    return texts


def _check_ordered(given: object, label: str) -> None:
    """Raise ValueError for a set, which cannot have one item for each image."""
    if isinstance(given, Set) and not isinstance(given, KeysView):  # Keys have an order.
        raise ValueError(f"{label} must be in the order of the images, got a set: pass a list")


def check_named(names: Sequence[str], found: dict[str, int], once: bool) -> None:
    """Raise ValueError if a name stands for no image; or with `once`, not for exactly one.

    Args:
        names: those that a caller gave.
        found: the number of images with each name.
        once: whether a name must be given once and stand for one image.
    """
    if absent := [name for name in found if not found[name]]:
        more = f", nor one of {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ValueError(f"no image of the gallery is named {shown(absent[0])}{more}")
    several = next((name for name in found if found[name] > 1), None)
    if once and several is not None:
        raise ValueError(
            f"{found[several]} images of the gallery are named {shown(several)}; it must be one: "
            "remove them and add them with a name each"
        )
    if once and len(found) != len(names):
        twice = next(name for name, count in collections.Counter(names).items() if count > 1)
        raise ValueError(f"names holds {shown(twice)} twice; each must be given once")


def check_origin(origin: str) -> None:
    """Raise ValueError if the source of descriptors is not a text."""
    if not isinstance(origin, str):
        raise ValueError(f"origin must be a text, got {origin!r}")


def check_query_labels(pids: Integers | None, camids: Integers | None, own_camera: bool) -> None:
    """Raise ValueError if the queries' pids or camids are given, but have no effect."""
    if camids is None and (pids is not None or not own_camera):
        raise ValueError("pids and own_camera=False need camids, the queries' cameras")
    if camids is not None and pids is None and own_camera:
        raise ValueError(
            "camids have no effect without pids or own_camera=False: with pids, images of a "
            "query's identity and camera are ignored, with own_camera=False all images of its "
            "camera. To select cameras of the gallery, use cameras and not_cameras"
        )


def passing(
    images: Descriptors,
    identities: Integers | None,
    cameras: Integers | None,
    not_cameras: Integers | None,
) -> np.ndarray | None:
    """Mark the images that pass all filters that are given, bool (N,); None means all."""
    keep = None
    for own, chosen, label in (
        (images.pids, identities, "identities"),
        (images.camids, cameras, "cameras"),
        (images.camids, not_cameras, "not_cameras"),
    ):
        if chosen is not None:
            passes = np.isin(own, as_integers(chosen, label), invert=label == "not_cameras")
            keep = passes if keep is None else keep & passes
    return keep


def as_texts(names: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Convert names to texts. Raise ValueError for anything else."""
    if isinstance(names, str | bytes):
        raise ValueError("names must be several texts, one per image, got a single one")
    try:
        return [os.fsdecode(name) for name in names]
    except TypeError as error:
        raise ValueError(f"names must be texts or paths: {error}") from None
