"""k-reciprocal re-ranking: Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with
k-reciprocal Encoding", CVPR 2017, as their published program computes it, in bounded memory.

An image is described by the images that are its mutual neighbours. Two images of one identity have
the same neighbours, for any camera, and the overlap of these sets (a Jaccard distance) corrects the
Euclidean distance. Labels are not used.

The published program stores several (Q + G) x (Q + G) arrays and sorts every row of them. Here the
nearest images and the furthest one are found exactly, block by block (`ranking.neighbours`), and
everything else is sparse: a row of the encoding has some tens of entries. The arithmetic is in
float64, and that of a row involves no other row of its block, so the result does not depend on the
block size.
"""

from typing import NamedTuple

import numpy as np

from reid_jax.evaluation.descriptor_sets import Descriptors, check_sets
from reid_jax.evaluation.distances import BLOCK_SIZE, Rescore, squared_distances
from reid_jax.evaluation.ranking import neighbours
from reid_jax.runtime.counts import as_count
from reid_jax.runtime.progress import Progress

#: Default of k1 below, which needs more images than that.
NEIGHBOURS = 20
#: Default of k2 below.
AVERAGED = 6

# Rows that are processed at a time: some megabytes.
_ROWS = 256


def k_reciprocal(
    query: Descriptors,
    gallery: Descriptors,
    *,
    k1: int = NEIGHBOURS,
    k2: int = AVERAGED,
    weight: float = 0.3,
    block_size: int = BLOCK_SIZE,
    progress: Progress = None,
) -> Rescore:
    """Prepare re-ranking, for `rescore` of `match_ranks`, `nearest` and `evaluate_ranking`.

    The re-ranked distance is ``(1 - weight) * jaccard + weight * d^2 / max d^2`` (equation 12). d^2
    are squared Euclidean distances, and the maximum is that from the query to all of the Q + G
    images. The encoding (equation 7) covers all Q + G images and uses all of them, including those
    that are not ranked for a query (junk, and images of its own camera). Equally near images are
    ordered by index, the query set before the gallery.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        k1: two images are k-reciprocal neighbours if each is among the other's k1 nearest, not
            counting the image itself.
        k2: number of images, including the image itself, over whose encodings an image's is
            averaged (equation 11); 1 disables this.
        weight: weight of the Euclidean distance, lambda in the paper. 1 ranks only by it.
        block_size: see `match_ranks`.
        progress: called with progress messages; None disables them.

    Returns:
        A function from a query's index to its weight and its offsets, float64 (G,).

    Raises:
        ValueError: as `match_ranks`, and if k1 or k2 is below 1 or more than the images allow, or
            weight is not in [0, 1].
    """
    query, gallery = check_sets(query, gallery)
    k1, k2 = as_count(k1, "k1"), as_count(k2, "k2")
    features = np.concatenate([query.features, gallery.features])
    _check_settings(k1, k2, weight, len(features))
    nearest, furthest = neighbours(
        features, max(k1 + 1, k2), block_size=block_size, progress=progress
    )
    furthest[furthest == 0] = 1  # All images are equal, and so are all distances for any divisor.
    encoding = _encode(features, furthest, nearest, k1)
    if k2 > 1:
        encoding = _mean_of_nearest(encoding, nearest[:, :k2])
    first = len(query.features)
    by_column = _transposed_from(encoding, first)

    def rescore(i: int) -> tuple[float, np.ndarray]:
        row = slice(encoding.starts[i], encoding.starts[i + 1])
        owners, entries = _entries(by_column.starts, encoding.columns[row])
        smaller = np.minimum(encoding.values[row][owners], by_column.values[entries])
        # Equation 10. Rows sum to 1, so the sum of the larger values is 2 less the sum of the
        # smaller.
        shared = np.bincount(by_column.columns[entries], smaller, minlength=len(gallery.features))
        return weight / furthest[i], (1 - weight) * (1 - shared / (2 - shared))

    return rescore


class _Sparse(NamedTuple):
    """Rows of a sparse matrix, one after the other."""

    starts: np.ndarray  # int64 (rows + 1,), the first entry of each row, and the end
    columns: np.ndarray  # int32
    values: np.ndarray  # float64


def _check_settings(k1: int, k2: int, weight: float, images: int) -> None:
    """Raise ValueError for settings that `k_reciprocal` does not support."""
    for name, k, least in (("k1", k1, k1 + 1), ("k2", k2, k2)):
        if least > images:
            raise ValueError(
                f"{name} = {k} needs at least {least} images, and query and gallery have {images}: "
                f"choose a smaller {name}"
            )
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}")


def _encode(features: np.ndarray, furthest: np.ndarray, nearest: np.ndarray, k1: int) -> _Sparse:
    """Encode every image by its expanded k-reciprocal neighbours (equations 3 to 7).

    Args:
        features: float32 (N, D).
        furthest: float64 (N,), each image's largest squared distance.
        nearest: int32 (N, at least k1 + 1), including the image itself.
        k1: see `k_reciprocal`.

    Returns:
        N x N: Gaussian weights exp(-d^2 / furthest), with rows that sum to 1.
    """
    count = len(features)
    starts, columns = _mutual(nearest[:, : k1 + 1])
    halves = _mutual(nearest[:, : round(k1 / 2) + 1])
    lengths, found, weights = [], [], []
    for first in range(0, count, _ROWS):
        last = min(first + _ROWS, count)
        rows = np.repeat(np.arange(first, last), np.diff(starts[first : last + 1]))
        near = columns[starts[first] : starts[last]]
        own = rows * count + near
        # A neighbour's own set for half k1 is added if the set already holds over 2/3 of it.
        owners, entries = _entries(halves[0], near)
        offered = rows[owners] * count + halves[1][entries]
        common = np.bincount(owners, _contains(own, offered), minlength=len(near))
        added = 3 * common > 2 * np.diff(halves[0])[near]
        keys = np.unique(np.concatenate([own, offered[added[owners]]]))
        rows, near = keys // count, (keys % count).astype(np.int32)

        lengths.append(np.bincount(rows - first, minlength=last - first))
        squared = [
            squared_distances(features[i], features, part)
            for i, part in zip(
                range(first, last), np.split(near, np.cumsum(lengths[-1])[:-1]), strict=True
            )
        ]
        weight = np.exp(-np.concatenate(squared) / furthest[rows])
        sums = np.bincount(rows - first, weight, minlength=last - first)
        found.append(near)
        weights.append(weight / sums[rows - first])
    return _Sparse(_starts(np.concatenate(lengths)), np.concatenate(found), np.concatenate(weights))


def _mutual(nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are each other's nearest, (N, k), as the rows of a sparse matrix."""
    count = len(nearest)
    keys = np.sort((np.arange(count)[:, None] * count + nearest).ravel())
    rows, columns = keys // count, keys % count
    mutual = _contains(keys, columns * count + rows)
    lengths = np.bincount(rows[mutual], minlength=count)
    return _starts(lengths), columns[mutual].astype(np.int32)


def _mean_of_nearest(encoding: _Sparse, nearest: np.ndarray) -> _Sparse:
    """Return every image's mean encoding over its nearest, (N, k2) (equation 11)."""
    count, k2 = nearest.shape
    lengths, columns, values = [], [], []
    for first in range(0, count, _ROWS):
        near = nearest[first : first + _ROWS]
        owners, entries = _entries(encoding.starts, near.ravel())
        keys, groups = np.unique(
            owners // k2 * count + encoding.columns[entries], return_inverse=True
        )
        # Sum in the order of `near`, which is the same in any block.
        sums = np.bincount(groups, encoding.values[entries], minlength=len(keys))
        lengths.append(np.bincount(keys // count, minlength=len(near)))
        columns.append((keys % count).astype(np.int32))
        values.append(sums / k2)
    return _Sparse(
        _starts(np.concatenate(lengths)), np.concatenate(columns), np.concatenate(values)
    )


def _transposed_from(matrix: _Sparse, first: int) -> _Sparse:
    """Return the transpose of a square matrix's rows from `first` on, as columns from 0 on."""
    kept = slice(matrix.starts[first], None)
    rows = np.repeat(np.arange(len(matrix.starts) - 1 - first), np.diff(matrix.starts[first:]))
    order = np.argsort(matrix.columns[kept], kind="stable")
    lengths = np.bincount(matrix.columns[kept], minlength=len(matrix.starts) - 1)
    return _Sparse(_starts(lengths), rows.astype(np.int32)[order], matrix.values[kept][order])


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return where rows of these lengths begin, and where the last row ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _entries(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of some rows of a sparse matrix, and the index of each entry's row."""
    lengths = starts[rows + 1] - starts[rows]
    owners = np.repeat(np.arange(len(rows)), lengths)
    before = np.cumsum(lengths) - lengths
    return owners, np.arange(len(owners)) + np.repeat(starts[rows] - before, lengths)


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a mask of the values that are in an ascending array."""
    if len(ascending) == 0:
        return np.zeros(len(values), bool)
    found = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[found] == values
