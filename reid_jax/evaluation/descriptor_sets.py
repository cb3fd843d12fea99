"""Descriptors of a set of images, with identities and cameras."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors, identities and cameras of N images.

    Attributes:
        features: float32 (N, D).
        pids: integers (N,), the identities; -1 is junk, 0 a distractor.
        camids: integers (N,), the cameras.
    """

    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray


def check_sets(query: Descriptors, gallery: Descriptors) -> tuple[Descriptors, Descriptors]:
    """Check two sets and return them as NumPy arrays.

    Raises:
        ValueError: if shapes or dtypes disagree, a set is empty, or a descriptor is not finite.
    """
    query, gallery = check(query, "query"), check(gallery, "gallery")
    check_dimensions(query, gallery)
    return query, gallery


def check_dimensions(query: Descriptors, gallery: Descriptors) -> None:
    """Raise ValueError if the two sets have descriptors of different lengths."""
    if query.features.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"query descriptors have {query.features.shape[1]} dimensions, gallery descriptors "
            f"{gallery.features.shape[1]}: extract both with the same network"
        )


def check(descriptors: Descriptors, name: str) -> Descriptors:
    """Return a set as NumPy arrays. Raise ValueError as `check_sets`, naming the set `name`."""
    features = np.asarray(descriptors.features, np.float32)
    pids, camids = np.asarray(descriptors.pids), np.asarray(descriptors.camids)
    if features.ndim != 2:
        raise ValueError(f"{name} descriptors must be (images, dimensions), got {features.shape}")
    if 0 in features.shape:
        raise ValueError(f"the {name} set is empty: its descriptors are {features.shape}")
    for label, array in (("pids", pids), ("camids", camids)):
        if array.shape != features.shape[:1] or array.dtype.kind not in "iu":
            raise ValueError(
                f"{name} {label} must be integers of shape {features.shape[:1]}, one per image, "
                f"got {array.dtype} {array.shape}"
            )
        if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name} {label} hold {array.max()}, which does not fit int64")
    # NaN and infinity show in the extremes; a mask would be as large as the descriptors.
    if not (np.isfinite(features.min()) and np.isfinite(features.max())):
        bad = next(i for i, row in enumerate(features) if not np.isfinite(row).all())
        raise ValueError(
            f"{name} descriptors hold NaN or infinity, first in image {bad}: the network that "
            "computed them has diverged"
        )
    pids, camids = (array.astype(np.int64, copy=False) for array in (pids, camids))
    return Descriptors(features, pids, camids)
