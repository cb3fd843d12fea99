"""Re-ID evaluation: CMC, mAP and mINP in bounded memory, and the nearest gallery images.

Protocol of Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015):
distances are Euclidean; gallery images of the query's own identity *and* camera are ignored for
that query; junk (pid -1) is ignored for all queries; distractors (pid 0) stay in the gallery and
are never a match. Equally distant gallery images rank in gallery order, lowest index first.

No row of distances is sorted. The rank of a match is counted: ``1 + |{valid gallery images nearer
than the match, or equally near with a smaller index}|``. The count is exact although most of the
work is in float32, see `distances`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reid_jax.data.identities import DISTRACTOR
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import (
    BLOCK_SIZE,
    Index,
    Order,
    Rescore,
    Search,
    mask,
    prepare,
    score_blocks,
    take_orders,
)
from reid_jax.runtime.counts import as_count
from reid_jax.runtime.progress import Progress

# The nearest images of an empty gallery, and their values.
_NOTHING = (np.empty(0, np.int64), np.empty(0))


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
        ranks: the ranks of the matches of each of the Q queries, as `match_ranks` returns them.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    average_precision: np.ndarray
    num_queries: int
    unmatched: np.ndarray
    ranks: Sequence[np.ndarray]

    def summary(self) -> dict[str, float | int]:
        """Return mAP, mINP and Rank-k as fractions, and the counts of queries, for JSON."""
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
    rescore: Rescore | None = None,
    progress: Progress = None,
) -> RankingResult:
    """Rank the gallery for every query and score the ranked lists, see `score_ranks`.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: see `match_ranks`.
        max_rank: length of the CMC curve.
        rescore: see `match_ranks`.
        progress: see `match_ranks`.

    Returns:
        The scores.

    Raises:
        ValueError: as `match_ranks`, and if no query has a match.
    """
    ranks = match_ranks(query, gallery, block_size=block_size, rescore=rescore, progress=progress)
    return score_ranks(ranks, max_rank)


def score_ranks(ranks: Sequence[np.ndarray], max_rank: int = 50) -> RankingResult:
    """Compute CMC, mAP and mINP of ranked lists.

    Average precision is the mean, over a query's matches, of the precision at the match's rank in
    the full ranking. The inverse negative penalty of a query is its number of matches divided by
    the rank of its hardest match (Ye et al., "Deep Learning for Person Re-identification: A Survey
    and Outlook", TPAMI 2021).

    Args:
        ranks: the ranks of each query's matches, from `match_ranks`.
        max_rank: length of the CMC curve.

    Returns:
        The scores. Queries without a match are listed in `unmatched` and excluded from all means.

    Raises:
        ValueError: no query has a match.
    """
    max_rank = as_count(max_rank, "max_rank")
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
        ranks=ranks,
    )


def match_ranks(
    query: Descriptors,
    gallery: Descriptors,
    *,
    block_size: int = BLOCK_SIZE,
    rescore: Rescore | None = None,
    progress: Progress = None,
) -> list[np.ndarray]:
    """Count the rank of every match of every query.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: number of gallery images whose scores are in memory at a time, for at most the
            smaller of `block_size` and 256 queries. It affects speed and memory, but not the
            result.
        rescore: function that returns for the i-th query a finite weight w >= 0 and a finite
            offset, float64 (G,). The gallery is then ordered by w d^2 + offset in float64, with d^2
            the squared Euclidean distance, ties in gallery order. It is called once per query, in
            ascending order. None orders by distance.
        progress: called with progress messages; None disables them.

    Returns:
        For each query the 1-based ranks of its matches among its valid gallery images, int64,
        ascending; empty if it has no match.

    Raises:
        ValueError: if shapes or dtypes disagree, a set is empty, a descriptor is not finite, or
            `rescore` returns something else.
    """
    search = prepare(query, gallery, block_size, rescore)
    ranks: list[np.ndarray] = []
    for orders in take_orders(search, progress):
        matches = [_find_matches(search, order) for order in orders]
        for columns, scores in score_blocks(search, orders):
            for found, row in zip(matches, scores, strict=True):
                mask(row, found.same_identity, columns)
                found.ranks[:] += _count_nearer(search, found, row, columns.start)
        ranks.extend(found.ranks for found in matches)
    return ranks


def nearest(
    query: Descriptors,
    gallery: Descriptors | Index,
    k: int,
    *,
    keep: np.ndarray | None = None,
    own_camera: bool = True,
    block_size: int = BLOCK_SIZE,
    rescore: Rescore | None = None,
    progress: Progress = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest valid gallery images of every query, in the order of `match_ranks`.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images, or their index from `index_gallery`.
        k: length of the ranked lists.
        keep: bool (G,), the gallery images to search among; None means all.
        own_camera: False ignores all images from the query's own camera.
        block_size: see `match_ranks`.
        rescore: see `match_ranks`.
        progress: see `match_ranks`.

    Returns:
        Indices into the gallery, int32 (Q, k), and Euclidean distances, float32 (Q, k), nearest
        first. With `rescore`, the values w d^2 + offset replace the distances. If a query has fewer
        than k valid gallery images, the rest of its row is -1 and infinity.
    """
    k = as_count(k, "k")
    search = prepare(query, gallery, block_size, rescore)
    if keep is not None:
        if keep.shape != search.valid.shape or keep.dtype != bool:
            raise ValueError(
                f"keep must be bool {search.valid.shape}, got {keep.dtype} {keep.shape}"
            )
        search = search._replace(valid=search.valid & keep)
    indices = np.full((len(search.query.pids), k), -1, np.int32)
    distances = np.full((len(search.query.pids), k), np.inf, np.float32)
    for orders in take_orders(search, progress, "listed the nearest for"):
        best = [_NOTHING] * len(orders)
        for columns, scores in score_blocks(search, orders):
            for j, (order, row) in enumerate(zip(orders, scores, strict=True)):
                own = search.same_identity(order.query)
                own = own[search.gallery.camids[own] == search.query.camids[order.query]]
                mask(row, own, columns)
                if not own_camera:
                    row[search.gallery.camids[columns] == search.query.camids[order.query]] = np.inf
                best[j] = _merge_nearest(search, order, best[j], row, columns.start, k)
        for order, (found, values) in zip(orders, best, strict=True):
            indices[order.query, : len(found)] = found
            distances[order.query, : len(found)] = np.sqrt(values) if rescore is None else values
    return indices, distances


def neighbours(
    features: np.ndarray,
    k: int,
    *,
    block_size: int = BLOCK_SIZE,
    progress: Progress = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest images of every image, including itself, and the furthest one's distance.

    Args:
        features: descriptors of N images, float32 (N, D).
        k: from 1 to N.
        block_size: see `match_ranks`.
        progress: called with progress messages; None disables them.

    Returns:
        Indices, int32 (N, k), nearest first and ties by lowest index first, so that an image comes
        after its earlier duplicates; and the squared Euclidean distance from each image to its
        furthest one, float64 (N,).
    """
    nobody = np.full(len(features), DISTRACTOR)
    everyone = Descriptors(features, nobody, nobody)
    search = prepare(everyone, everyone, block_size)
    indices, furthest = np.empty((len(features), k), np.int32), np.zeros(len(features))
    for orders in take_orders(search, progress, "found the neighbours of"):
        best = [_NOTHING] * len(orders)
        for columns, scores in score_blocks(search, orders):
            for j, (order, row) in enumerate(zip(orders, scores, strict=True)):
                best[j] = _merge_nearest(search, order, best[j], row, columns.start, k)
                far = _furthest(search, order, row, columns.start)
                furthest[order.query] = max(furthest[order.query], far)
        for order, (found, _) in zip(orders, best, strict=True):
            indices[order.query] = found
    return indices, furthest


class _Matches(NamedTuple):
    """A query's matches, nearest first, and their ranks as far as they are counted."""

    order: Order
    indices: np.ndarray
    values: np.ndarray  # the values that the query orders by
    bounds: tuple[np.ndarray, np.ndarray]
    same_identity: np.ndarray
    ranks: np.ndarray


def _find_matches(search: Search, order: Order) -> _Matches:
    """Return a query's matches in their order, ranked among themselves."""
    same = search.same_identity(order.query)
    indices = same[search.gallery.camids[same] != search.query.camids[order.query]]
    values = search.values(order, indices)
    by_value = np.argsort(values, kind="stable")
    indices, values = indices[by_value], values[by_value]
    bounds = search.score_bounds(order, values)
    return _Matches(order, indices, values, bounds, same, np.arange(1, len(indices) + 1))


def _count_nearer(search: Search, found: _Matches, row: np.ndarray, start: int) -> np.ndarray:
    """Count the other identities' images that rank before each match.

    Args:
        search: the search.
        found: the matches of the row's query, M of them.
        row: float32 (B,), scores of one block of the gallery; infinite for images that do not
            count.
        start: gallery index of the block's first image.

    Returns:
        int64 (M,).
    """
    low, high = found.bounds
    if len(low) == 0:
        return np.empty(0, np.int64)
    columns = None
    within = row <= high.max()
    if 8 * np.count_nonzero(within) < len(row):  # as for a trained network, with early matches
        columns = np.flatnonzero(within)
        row = row[columns]
    counts = np.zeros(len(low), np.int64)
    undecided = np.zeros(len(row), bool)
    for m in range(len(low)):
        surely, perhaps = row < low[m], row <= high[m]
        counts[m] = np.count_nonzero(surely)
        if np.count_nonzero(perhaps) > counts[m]:
            undecided |= surely ^ perhaps
    # One image is often near several matches; compute its distance once.
    undecided = np.flatnonzero(undecided)
    if len(undecided):
        indices = (undecided if columns is None else columns[undecided])[None] + start
        values, own = search.values(found.order, indices[0])[None], found.values[:, None]
        nearer = (values < own) | ((values == own) & (indices < found.indices[:, None]))
        counts += np.count_nonzero(nearer & (row[undecided][None] >= low[:, None]), axis=1)
    return counts


def _merge_nearest(
    search: Search,
    order: Order,
    best: tuple[np.ndarray, np.ndarray],
    row: np.ndarray,
    start: int,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Merge one block's row of scores into a query's k nearest so far (indices, values)."""
    limit = best[1][-1] if len(best[0]) == k else np.inf
    enough = _enough(row, k)
    if np.isfinite(enough):
        # The k lowest scores may not be the k nearest images, but they bound how far these are.
        limit = min(limit, search.largest_value(order, enough))
    high: np.ndarray | float = float(np.finfo(np.float32).max)
    if np.isfinite(limit):
        high = search.score_bounds(order, np.array(limit, np.float64))[1]
    columns = np.flatnonzero(row <= high) + start
    indices = np.concatenate([best[0], columns])
    values = np.concatenate([best[1], search.values(order, columns)])
    by_value = np.argsort(values, kind="stable")[:k]
    return indices[by_value], values[by_value]


def _enough(row: np.ndarray, k: int) -> np.float32:
    """Return a score that k images of a row, and few others, do not exceed; infinity if fewer."""
    if len(row) < k:
        return np.float32(np.inf)
    # Among 8 k groups, k have a minimum up to this one. Minima are much faster than a partition.
    depth = max(1, len(row) // (8 * k))
    width = len(row) // depth
    minima = row[: depth * width].reshape(depth, width).min(axis=0)
    return np.partition(minima, k - 1)[k - 1]


def _furthest(search: Search, order: Order, row: np.ndarray, start: int) -> float:
    """Return a query's largest value among the images of a block's row of finite scores."""
    near_top = row.max() - np.float32(2 * search.margin(order, search.reach))
    return search.values(order, np.flatnonzero(row >= near_top) + start).max()
