"""Re-ID evaluation: CMC, mAP and mINP in bounded memory, and the nearest gallery images.

Protocol of Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015):
distances are Euclidean; gallery images of the query's own identity *and* camera are ignored for
that query; junk (pid -1) is ignored for all queries; distractors (pid 0) stay in the gallery and
are never a match. Equally distant gallery images rank in gallery order, lowest index first.

No row of distances is ever sorted. The rank of a match is counted:
``1 + |{valid gallery images nearer than the match, or equally near with a smaller index}|``.

The count is exact although the bulk of the work is in float32. XLA computes a block of
``|g|^2 - 2 q.g`` with the centre of the gallery moved to the origin, which orders the row of a
query like its distances do, up to a rounding error whose size is known. A match's own distance is
computed directly, in float64. Gallery images further from that threshold than the rounding error
are counted from the block; the few that are closer have their distances computed in float64 too.
The ranks are therefore those of the float64 distances whatever the device, the block size or the
tiling of the matrix product.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

JUNK = -1
DISTRACTOR = 0

BLOCK_SIZE = 16384

# The matrix product's tile, (queries, gallery images): what XLA's CPU product runs fastest at.
_TILE = (256, 1024)

# Bound on the error of a float32 score, in units of 2^-24 (|q| + |g|)^2 with the centre at the
# origin. 8 cover the centring, the squared norm and the rounding of the threshold; the others allow
# a dot product an error of 48 units of 2^-24 |q| |g|. The largest seen is 18 (1,536 heavy-tailed
# dimensions; the textbook worst case, one unit a dimension, needs all roundings to agree).
_SLACK = 32 * 2.0**-24

# Rows whose float64 differences are held at a time: few enough to stay in a core's cache.
_EXACT_ROWS = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of N images and who they show.

    Attributes:
        features: float32 (N, D).
        pids: int32 (N,), the identities; -1 is junk, 0 a distractor.
        camids: int32 (N,), the cameras.
    """

    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class RankingResult:
    """Result of `evaluate_ranking`. Means are over the queries that have a match.

    Attributes:
        cmc: float64 (max_rank,); ``cmc[k - 1]`` is Rank-k, the share of queries whose first match
            is among the k nearest valid gallery images.
        mAP: mean average precision, in [0, 1].
        mINP: mean inverse negative penalty, in [0, 1].
        average_precision: float64 (Q,), NaN for a query without a match.
        num_queries: Q, unmatched queries included.
        unmatched: int (U,), indices of the queries without a match, ascending.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    average_precision: np.ndarray
    num_queries: int
    unmatched: np.ndarray

    def summary(self) -> dict[str, float | int]:
        """Returns mAP, mINP and Rank-k as fractions, and the counts of queries, for JSON."""
        ranks = [k for k in (1, 5, 10, 20) if k <= len(self.cmc)]
        return {
            "mAP": self.mAP,
            "mINP": self.mINP,
            **{f"Rank-{k}": float(self.cmc[k - 1]) for k in ranks},
            "queries": self.num_queries,
            "unmatched": len(self.unmatched),
        }


def evaluate_ranking(
    query: Descriptors,
    gallery: Descriptors,
    *,
    block_size: int = BLOCK_SIZE,
    max_rank: int = 50,
) -> RankingResult:
    """Ranks the gallery for every query and scores the ranked lists.

    Average precision is the mean, over a query's matches, of the precision at the match's rank in
    the full ranking. The inverse negative penalty of a query is its number of matches divided by
    the rank of its hardest match (Ye et al., "Deep Learning for Person Re-identification: A Survey
    and Outlook", TPAMI 2021).

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: see `match_ranks`.
        max_rank: length of the CMC curve.

    Returns:
        The scores. Queries without a match are listed in `unmatched` and are in no mean.

    Raises:
        ValueError: as `match_ranks`, and if no query has a match.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")
    ranks = match_ranks(query, gallery, block_size=block_size)
    matched = np.array([len(r) > 0 for r in ranks])
    if not matched.any():
        raise ValueError(
            f"none of the {len(ranks)} queries has a match: a match is a gallery image of the same "
            "identity (pid > 0) seen by another camera; check the pids and camids of both folders"
        )
    average_precision = np.full(len(ranks), np.nan)
    average_precision[matched] = [
        np.mean(np.arange(1, len(r) + 1) / r) for r in ranks if len(r) > 0
    ]
    first = np.array([r[0] for r in ranks if len(r) > 0])
    penalties = [len(r) / r[-1] for r in ranks if len(r) > 0]
    return RankingResult(
        cmc=np.mean(first[:, None] <= np.arange(1, max_rank + 1)[None], axis=0),
        mAP=float(np.mean(average_precision[matched])),
        mINP=float(np.mean(penalties)),
        average_precision=average_precision,
        num_queries=len(ranks),
        unmatched=np.flatnonzero(~matched),
    )


def match_ranks(
    query: Descriptors, gallery: Descriptors, *, block_size: int = BLOCK_SIZE
) -> list[np.ndarray]:
    """Counts the rank of every match of every query.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: at most this many gallery images, and at most the smaller of it and 256 queries,
            have their scores in memory at a time. Changes speed and memory, never the result.

    Returns:
        For each query the 1-based ranks of its matches among its valid gallery images, int64,
        ascending; empty where it has no match.

    Raises:
        ValueError: if shapes or dtypes disagree, a set is empty, or a descriptor is not finite.
    """
    search = _prepare(query, gallery, block_size)
    ranks: list[np.ndarray] = []
    for queries in _slices(0, len(search.query.pids), search.tile[0]):
        matches = [_find_matches(search, i) for i in range(queries.start, queries.stop)]
        for columns, scores in _score_blocks(search, queries):
            for found, row in zip(matches, scores, strict=True):
                _mask(row, found.same_identity, columns)
                found.ranks[:] += _count_nearer(search, found, row, columns.start)
        ranks.extend(found.ranks for found in matches)
    return ranks


def nearest(
    query: Descriptors, gallery: Descriptors, k: int, *, block_size: int = BLOCK_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest valid gallery images of every query, in the order `match_ranks` counts.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        k: length of the ranked lists.
        block_size: see `match_ranks`.

    Returns:
        Indices into the gallery, int32 (Q, k), and Euclidean distances, float32 (Q, k), nearest
        first. Where a query has fewer than k valid gallery images, -1 and infinity.

    Raises:
        ValueError: as `match_ranks`, and if k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    search = _prepare(query, gallery, block_size)
    indices = np.full((len(search.query.pids), k), -1, np.int32)
    distances = np.full((len(search.query.pids), k), np.inf, np.float32)
    for queries in _slices(0, len(search.query.pids), search.tile[0]):
        best = [(np.empty(0, np.int64), np.empty(0)) for _ in range(queries.start, queries.stop)]
        for columns, scores in _score_blocks(search, queries):
            for j, row in enumerate(scores):
                i = queries.start + j
                own = search.same_identity(i)
                own = own[search.gallery.camids[own] == search.query.camids[i]]
                _mask(row, own, columns)
                best[j] = _merge_nearest(search, i, best[j], row, columns.start, k)
        for i, (found, squared) in zip(range(queries.start, queries.stop), best, strict=True):
            indices[i, : len(found)] = found
            distances[i, : len(found)] = np.sqrt(squared)
    return indices, distances


class _Search(NamedTuple):
    """A query set, a gallery, and what is worked out once for both."""

    query: Descriptors
    gallery: Descriptors
    centre: np.ndarray  # float32 (D,), the mean of the gallery
    query_norms: np.ndarray  # float64 (Q,), from the centre
    reach: float  # the largest norm in the gallery, from the centre
    by_pid: np.ndarray  # the gallery's indices sorted by pid, ascending within a pid
    sorted_pids: np.ndarray
    block_size: int
    tile: tuple[int, int]

    def same_identity(self, i: int) -> np.ndarray:
        """Returns the ascending gallery indices of query i's identity: none for a distractor."""
        pid = self.query.pids[i]
        if pid <= DISTRACTOR:
            return np.empty(0, np.int64)
        first, last = np.searchsorted(self.sorted_pids, [pid, pid + 1])
        return self.by_pid[first:last]

    def squared_distances(self, i: int, indices: np.ndarray) -> np.ndarray:
        """Returns query i's squared distances to some gallery images, float64."""
        point, points = self.query.features[i], self.gallery.features
        if self.reach == 0:
            # A collapsed network: all images tie, so none is ever decided by its score.
            return np.broadcast_to(_squared_distances(point, points[:1]), indices.shape)
        return _squared_distances(point, points, indices)

    def score_bounds(self, i: int, squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores below and above which an image is surely nearer, surely further.

        Args:
            i: the query.
            squared: float64, squared distances from it.

        Returns:
            Two float32 arrays like `squared`.
        """
        norm = self.query_norms[i]
        # By the triangle inequality nothing with a larger norm than this is at that distance, so
        # that an outlier in the gallery does not widen the margin for everyone.
        reach = np.minimum(self.reach, norm + np.sqrt(squared))
        # The last term is for products that vanish below the smallest normal float32.
        margin = _SLACK * (norm + reach) ** 2 + len(self.centre) * np.finfo(np.float32).tiny
        score = squared - norm**2
        return (score - margin).astype(np.float32), (score + margin).astype(np.float32)


class _Matches(NamedTuple):
    """A query's matches, nearest first, and their ranks as counted so far."""

    query: int
    indices: np.ndarray
    squared: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]
    same_identity: np.ndarray
    ranks: np.ndarray


def _prepare(query: Descriptors, gallery: Descriptors, block_size: int) -> _Search:
    """Checks the input and works out what both searches need."""
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    query, gallery = _check(query, "query"), _check(gallery, "gallery")
    if query.features.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"query descriptors have {query.features.shape[1]} dimensions, gallery descriptors "
            f"{gallery.features.shape[1]}: extract both with the same network"
        )
    centre = np.mean(gallery.features, axis=0, dtype=np.float64).astype(np.float32)
    query_norms = np.sqrt(_squared_distances(centre, query.features))
    reach = np.sqrt(_squared_distances(centre, gallery.features).max())
    if 4 * (query_norms.max() + reach) ** 2 > np.finfo(np.float32).max:
        raise ValueError(
            f"descriptors are as long as {max(query_norms.max(), reach):.1e}, whose square "
            "overflows float32: check the network, or scale the descriptors"
        )
    by_pid = np.argsort(gallery.pids, kind="stable")
    return _Search(
        query,
        gallery,
        centre,
        query_norms,
        reach,
        by_pid,
        gallery.pids[by_pid],
        block_size,
        (min(_TILE[0], block_size), min(_TILE[1], block_size)),
    )


def _check(descriptors: Descriptors, name: str) -> Descriptors:
    """Returns the descriptors as NumPy arrays, or says what is wrong with them."""
    features = np.asarray(descriptors.features, np.float32)
    pids, camids = np.asarray(descriptors.pids), np.asarray(descriptors.camids)
    if features.ndim != 2:
        raise ValueError(f"{name} descriptors must be (images, dimensions), got {features.shape}")
    if 0 in features.shape:
        raise ValueError(f"the {name} set is empty: its descriptors are {features.shape}")
    for label, array in (("pids", pids), ("camids", camids)):
        if array.shape != features.shape[:1] or array.dtype.kind not in "iu":
            raise ValueError(
                f"{name} {label} must be integers of shape {features.shape[:1]}, one an image, "
                f"got {array.dtype} {array.shape}"
            )
    # The extremes carry NaN and infinity without a mask as large as the descriptors.
    if not (np.isfinite(features.min()) and np.isfinite(features.max())):
        bad = next(i for i, row in enumerate(features) if not np.isfinite(row).all())
        raise ValueError(
            f"{name} descriptors hold NaN or infinity, first in image {bad}: the network that made "
            "them has diverged"
        )
    return Descriptors(features, pids.astype(np.int64), camids.astype(np.int64))


def _find_matches(search: _Search, i: int) -> _Matches:
    """Returns query i's matches in their order, ranked among themselves."""
    same = search.same_identity(i)
    indices = same[search.gallery.camids[same] != search.query.camids[i]]
    squared = search.squared_distances(i, indices)
    order = np.argsort(squared, kind="stable")
    indices, squared = indices[order], squared[order]
    bounds = search.score_bounds(i, squared)
    return _Matches(i, indices, squared, bounds, same, np.arange(1, len(indices) + 1))


def _count_nearer(search: _Search, found: _Matches, row: np.ndarray, start: int) -> np.ndarray:
    """Counts the other identities' images that rank before each match.

    Args:
        search: the search.
        found: the matches of the row's query, M of them.
        row: float32 (B,), scores of one block of the gallery, infinite where not to be counted.
        start: gallery index of the block's first image.

    Returns:
        int64 (M,).
    """
    counts = np.zeros(len(found.indices), np.int64)
    undecided = []
    for m, (low, high) in enumerate(zip(*found.bounds, strict=True)):
        surely, perhaps = row < low, row <= high
        counts[m] = np.count_nonzero(surely)
        if np.count_nonzero(perhaps) > counts[m]:
            undecided.append((m, np.flatnonzero(surely ^ perhaps)))
    if undecided:
        # One image is often near several thresholds: each distance is computed once.
        near = np.zeros(len(row), bool)
        near[np.concatenate([columns for _, columns in undecided])] = True
        squared = np.full(len(row), np.nan)
        squared[near] = search.squared_distances(found.query, np.flatnonzero(near) + start)
        for m, columns in undecided:
            nearer = squared[columns] < found.squared[m]
            tied = squared[columns] == found.squared[m]
            counts[m] += np.count_nonzero(nearer | tied & (columns + start < found.indices[m]))
    return counts


def _merge_nearest(
    search: _Search,
    i: int,
    best: tuple[np.ndarray, np.ndarray],
    row: np.ndarray,
    start: int,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Merges one block's row of scores into query i's k nearest so far (indices, squared)."""
    if len(best[0]) == k:
        limit = best[1][-1]
    elif np.count_nonzero(np.isfinite(row)) > k:
        # The k lowest scores need not be the k nearest, but no image further than all of them is.
        lowest = np.argpartition(row, k - 1)[:k]
        limit = search.squared_distances(i, lowest + start).max()
    else:
        limit = np.inf
    high = search.score_bounds(i, np.asarray(limit))[1] if np.isfinite(limit) else np.inf
    columns = np.flatnonzero((row <= high) & np.isfinite(row)) + start
    indices = np.concatenate([best[0], columns])
    squared = np.concatenate([best[1], search.squared_distances(i, columns)])
    order = np.argsort(squared, kind="stable")[:k]
    return indices[order], squared[order]


def _score_blocks(search: _Search, queries: slice) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (gallery slice, writable float32 (queries, gallery images) scores), junk at infinity.

    Every call of the compiled product has one shape, the last tiles being padded.
    """
    tile = search.tile[1]
    query = _padded(search.query.features[queries], search.tile[0])
    junk = search.gallery.pids == JUNK
    for columns in _slices(0, len(junk), search.block_size // tile * tile):
        tiles = [
            _scores(query, _padded(search.gallery.features[part], tile), search.centre)
            for part in _slices(columns.start, columns.stop, tile)
        ]
        scores = np.concatenate(tiles, axis=1)
        scores = scores[: queries.stop - queries.start, : columns.stop - columns.start]
        scores[:, junk[columns]] = np.inf
        yield columns, scores


@jax.jit
def _scores(query: jax.Array, gallery: jax.Array, centre: jax.Array) -> jax.Array:
    """Returns |g|^2 - 2 q.g about a centre: the squared distance less |q|^2, float32 (Q, G)."""
    query, gallery = query - centre[None], gallery - centre[None]
    # HIGHEST, lest GPUs and TPUs multiply in less than float32.
    products = jnp.matmul(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(gallery * gallery, axis=1)[None] - 2.0 * products


def _squared_distances(
    point: np.ndarray, points: np.ndarray, indices: np.ndarray | None = None
) -> np.ndarray:
    """Returns the squared distances from (D,) to the rows of (N, D) picked by indices, float64.

    The same row has the same distance wherever it stands, so that equal images tie exactly.
    """
    length = len(points) if indices is None else len(indices)
    squared = np.empty(length)
    for part in _slices(0, length, _EXACT_ROWS):
        rows = points[part] if indices is None else points[indices[part]]
        difference = np.subtract(rows, point[None], dtype=np.float64)
        squared[part] = np.square(difference, out=difference).sum(axis=1)
    return squared


def _mask(row: np.ndarray, indices: np.ndarray, columns: slice) -> None:
    """Sets to infinity the scores of those ascending gallery indices that lie in the block."""
    first, last = np.searchsorted(indices, [columns.start, columns.stop])
    row[indices[first:last] - columns.start] = np.inf


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Returns the rows followed by zeros up to a length."""
    if len(rows) == length:
        return rows
    return np.concatenate([rows, np.zeros((length - len(rows), rows.shape[1]), rows.dtype)])


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Yields consecutive slices of at most `step` that cover start to stop."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))
