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

A gallery may be ordered by ``w d^2 + offset`` instead of the squared distance ``d^2``, with a
weight of each query's own and an offset of each of its gallery images (`reranking`). The counting
and its exactness are the same.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.console import clock

JUNK = -1
DISTRACTOR = 0

BLOCK_SIZE = 16384

# From a query's index to a weight w >= 0 and an offset, float64 (G,): the gallery is ordered by
# w d^2 + offset, d^2 being the squared Euclidean distance.
Rescore = Callable[[int], tuple[float, np.ndarray]]

# The matrix product's tile, (queries, gallery images): what XLA's CPU product runs fastest at.
_TILE = (256, 1024)

# Bound on the error of a float32 score, in units of 2^-24 (|q| + |g|)^2 with the centre at the
# origin. 8 cover the centring, the squared norm and the rounding of the threshold; the others allow
# a dot product an error of 48 units of 2^-24 |q| |g|. The largest seen is 18 (1,536 heavy-tailed
# dimensions; the textbook worst case, one unit a dimension, needs all roundings to agree).
_SLACK = 32 * 2.0**-24

# What `rescore` adds, in units of 2^-24 of what is rounded: weight, product, offset and sum.
_RESCORE_SLACK = 4 * 2.0**-24

# Offsets in memory at a time, 256 MiB: all of a tile's queries have theirs up to 131,072 images.
_OFFSETS = 2**25

# The nearest of no images, and their values.
_NOTHING = (np.empty(0, np.int64), np.empty(0))

# Seconds between two lines of progress.
_PROGRESS_PERIOD = 10.0

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
    rescore: Rescore | None = None,
    progress: Callable[[str], object] | None = None,
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
        rescore: see `match_ranks`.
        progress: see `match_ranks`.

    Returns:
        The scores. Queries without a match are listed in `unmatched` and are in no mean.

    Raises:
        ValueError: as `match_ranks`, and if no query has a match.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")
    ranks = match_ranks(query, gallery, block_size=block_size, rescore=rescore, progress=progress)
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
    query: Descriptors,
    gallery: Descriptors,
    *,
    block_size: int = BLOCK_SIZE,
    rescore: Rescore | None = None,
    progress: Callable[[str], object] | None = None,
) -> list[np.ndarray]:
    """Counts the rank of every match of every query.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: at most this many gallery images, and at most the smaller of it and 256 queries,
            have their scores in memory at a time. Changes speed and memory, never the result.
        rescore: gives for the i-th query a finite weight w >= 0 and a finite offset, float64 (G,).
            The gallery is then ordered by w d^2 + offset in float64, d^2 being the squared
            Euclidean distance, ties in gallery order. Called once a query, in ascending order. None
            orders by distance.
        progress: called with a line of text now and then; None is silence.

    Returns:
        For each query the 1-based ranks of its matches among its valid gallery images, int64,
        ascending; empty where it has no match.

    Raises:
        ValueError: if shapes or dtypes disagree, a set is empty, a descriptor is not finite, or
            what `rescore` gives is none of the above.
    """
    search = _prepare(query, gallery, block_size, rescore)
    ranks: list[np.ndarray] = []
    for orders in _orders(search, progress):
        matches = [_find_matches(search, order) for order in orders]
        for columns, scores in _score_blocks(search, orders):
            for found, row in zip(matches, scores, strict=True):
                _mask(row, found.same_identity, columns)
                found.ranks[:] += _count_nearer(search, found, row, columns.start)
        ranks.extend(found.ranks for found in matches)
    return ranks


def nearest(
    query: Descriptors,
    gallery: Descriptors,
    k: int,
    *,
    block_size: int = BLOCK_SIZE,
    rescore: Rescore | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest valid gallery images of every query, in the order `match_ranks` counts.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        k: length of the ranked lists.
        block_size: see `match_ranks`.
        rescore: see `match_ranks`.

    Returns:
        Indices into the gallery, int32 (Q, k), and Euclidean distances, float32 (Q, k), nearest
        first; with `rescore` not those but what it orders by, w d^2 + offset. Where a query has
        fewer than k valid gallery images, -1 and infinity.

    Raises:
        ValueError: as `match_ranks`, and if k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    search = _prepare(query, gallery, block_size, rescore)
    indices = np.full((len(search.query.pids), k), -1, np.int32)
    distances = np.full((len(search.query.pids), k), np.inf, np.float32)
    for orders in _orders(search):
        best = [_NOTHING] * len(orders)
        for columns, scores in _score_blocks(search, orders):
            for j, (order, row) in enumerate(zip(orders, scores, strict=True)):
                own = search.same_identity(order.query)
                own = own[search.gallery.camids[own] == search.query.camids[order.query]]
                _mask(row, own, columns)
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
    progress: Callable[[str], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest of every image among all, itself included, and how far the furthest is.

    Args:
        features: descriptors of N images, float32 (N, D).
        k: from 1 to N.
        block_size: see `match_ranks`.
        progress: called with a line of text now and then; None is silence.

    Returns:
        Indices, int32 (N, k), nearest first and of equally near ones the lowest first, so that an
        image with earlier duplicates comes after them; and squared Euclidean distances, float64
        (N,), to each image's furthest.
    """
    nobody = np.full(len(features), DISTRACTOR)
    everyone = Descriptors(features, nobody, nobody)
    search = _prepare(everyone, everyone, block_size)
    indices, furthest = np.empty((len(features), k), np.int32), np.zeros(len(features))
    for orders in _orders(search, progress, "found the neighbours of"):
        best = [_NOTHING] * len(orders)
        for columns, scores in _score_blocks(search, orders):
            for j, (order, row) in enumerate(zip(orders, scores, strict=True)):
                best[j] = _merge_nearest(search, order, best[j], row, columns.start, k)
                far = _furthest(search, order, row, columns.start)
                furthest[order.query] = max(furthest[order.query], far)
        for order, (found, _) in zip(orders, best, strict=True):
            indices[order.query] = found
    return indices, furthest


def squared_distances(
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


class _Order(NamedTuple):
    """A query, and what it orders the gallery by: ``weight * d^2 + offset``."""

    query: int
    weight: float = 1.0
    offset: np.ndarray | None = None  # float64 (G,); None is zero
    least: float = 0.0  # of the offsets
    largest: float = 0.0  # of their absolute values


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
    rescore: Rescore | None

    def order(self, i: int) -> _Order:
        """Returns query i's order, asking `rescore` for it."""
        if self.rescore is None:
            return _Order(i)
        weight, offset = self.rescore(i)
        shape = self.gallery.pids.shape
        if not (isinstance(offset, np.ndarray) and offset.dtype == np.float64):
            raise ValueError(f"rescore({i}) must give a float64 array of offsets {shape}")
        if offset.shape != shape:
            raise ValueError(
                f"rescore({i}) gives offsets of shape {offset.shape}, the gallery has {shape}"
            )
        least, largest = offset.min(), offset.max()
        size = max(abs(least), abs(largest))
        reach = 4 * weight * (self.query_norms[i] + self.reach) ** 2
        if not (weight >= 0 and reach + 4 * size <= np.finfo(np.float32).max):
            raise ValueError(
                f"rescore({i}) gives the weight {weight} and offsets from {least} to {largest}: "
                "the weight must be at least 0, and no sum may overflow float32"
            )
        return _Order(i, float(weight), offset, least, size)

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
            return np.broadcast_to(squared_distances(point, points[:1]), indices.shape)
        return squared_distances(point, points, indices)

    def values(self, order: _Order, indices: np.ndarray) -> np.ndarray:
        """Returns what a query orders by for some gallery images, float64."""
        if order.offset is None:
            return self.squared_distances(order.query, indices)
        offset = order.offset[indices]
        if order.weight == 0:
            return offset
        return order.weight * self.squared_distances(order.query, indices) + offset

    def score_bounds(self, order: _Order, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores below and above which an image is surely nearer, surely further.

        Args:
            order: the query's.
            values: float64, what it orders by.

        Returns:
            Two float32 arrays like `values`.
        """
        norm = self.query_norms[order.query]
        margin = self.margin(order, self.largest_norm(order, values))
        score = values - order.weight * norm**2
        return (score - margin).astype(np.float32), (score + margin).astype(np.float32)

    def largest_value(self, order: _Order, score: np.float32) -> float:
        """Returns a value that no image of at most this score exceeds."""
        value = float(score) + order.weight * self.query_norms[order.query] ** 2
        norm = self.largest_norm(order, value + self.margin(order, self.reach))
        return value + self.margin(order, norm)

    def largest_norm(self, order: _Order, values: np.ndarray | float) -> np.ndarray | float:
        """Returns the norm, from the centre, that no image of at most this value exceeds."""
        if order.weight == 0:
            return self.reach
        # By the triangle inequality. So an outlier in the gallery does not widen the margin for
        # everyone.
        squared = np.maximum(values - order.least, 0) / order.weight
        return np.minimum(self.reach, self.query_norms[order.query] + np.sqrt(squared))

    def margin(self, order: _Order, reach: np.ndarray | float) -> np.ndarray | float:
        """Returns twice the largest error of a score of images whose norm is at most `reach`."""
        square = (self.query_norms[order.query] + reach) ** 2
        # The last term is for products that vanish below the smallest normal float32.
        tiny = np.finfo(np.float32).tiny
        margin = order.weight * (_SLACK * square + len(self.centre) * tiny)
        if order.offset is not None:
            margin += _RESCORE_SLACK * (order.weight * square + order.largest)
            margin += tiny * (square + 1)
        return margin


class _Matches(NamedTuple):
    """A query's matches, nearest first, and their ranks as counted so far."""

    order: _Order
    indices: np.ndarray
    values: np.ndarray  # what the query orders by
    bounds: tuple[np.ndarray, np.ndarray]
    same_identity: np.ndarray
    ranks: np.ndarray


def check_sets(query: Descriptors, gallery: Descriptors) -> tuple[Descriptors, Descriptors]:
    """Returns both sets as NumPy arrays.

    Raises:
        ValueError: if shapes or dtypes disagree, a set is empty, or a descriptor is not finite.
    """
    query, gallery = _check(query, "query"), _check(gallery, "gallery")
    if query.features.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"query descriptors have {query.features.shape[1]} dimensions, gallery descriptors "
            f"{gallery.features.shape[1]}: extract both with the same network"
        )
    return query, gallery


def _prepare(
    query: Descriptors, gallery: Descriptors, block_size: int, rescore: Rescore | None = None
) -> _Search:
    """Checks the input and works out what all searches need."""
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    query, gallery = check_sets(query, gallery)
    centre = np.mean(gallery.features, axis=0, dtype=np.float64).astype(np.float32)
    query_norms = np.sqrt(squared_distances(centre, query.features))
    reach = np.sqrt(squared_distances(centre, gallery.features).max())
    if 4 * (query_norms.max() + reach) ** 2 > np.finfo(np.float32).max:
        raise ValueError(
            f"descriptors are as long as {max(query_norms.max(), reach):.1e}, whose square "
            "overflows float32: check the network, or scale the descriptors"
        )
    by_pid = np.argsort(gallery.pids, kind="stable")
    queries = min(_TILE[0], block_size)
    if rescore is not None:
        queries = min(queries, max(1, _OFFSETS // len(by_pid)))
    return _Search(
        query,
        gallery,
        centre,
        query_norms,
        reach,
        by_pid,
        gallery.pids[by_pid],
        block_size,
        (queries, min(_TILE[1], block_size)),
        rescore,
    )


def _orders(
    search: _Search,
    progress: Callable[[str], object] | None = None,
    what: str = "ranked the gallery for",
) -> Iterator[list[_Order]]:
    """Yields the orders of as many queries as a tile holds at a time, and says how far that is."""
    total = len(search.query.pids)
    started = shown = time.monotonic()
    for queries in _slices(0, total, search.tile[0]):
        yield [search.order(i) for i in range(queries.start, queries.stop)]
        now = time.monotonic()
        if progress and now - shown > _PROGRESS_PERIOD:
            left = (now - started) * (total - queries.stop) / queries.stop
            progress(f"{what} {queries.stop:,} of {total:,} images  ETA {clock(left)}")
            shown = now


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


def _find_matches(search: _Search, order: _Order) -> _Matches:
    """Returns a query's matches in their order, ranked among themselves."""
    same = search.same_identity(order.query)
    indices = same[search.gallery.camids[same] != search.query.camids[order.query]]
    values = search.values(order, indices)
    by_value = np.argsort(values, kind="stable")
    indices, values = indices[by_value], values[by_value]
    bounds = search.score_bounds(order, values)
    return _Matches(order, indices, values, bounds, same, np.arange(1, len(indices) + 1))


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
    low, high = found.bounds
    if len(low) == 0:
        return np.empty(0, np.int64)
    columns = None
    within = row <= high.max()
    if 8 * np.count_nonzero(within) < len(row):  # a trained network's matches are among the first
        columns = np.flatnonzero(within)
        row = row[columns]
    counts = np.zeros(len(low), np.int64)
    undecided = np.zeros(len(row), bool)
    for m in range(len(low)):
        surely, perhaps = row < low[m], row <= high[m]
        counts[m] = np.count_nonzero(surely)
        if np.count_nonzero(perhaps) > counts[m]:
            undecided |= surely ^ perhaps
    # One image is often near several matches: its distance is computed once.
    undecided = np.flatnonzero(undecided)
    if len(undecided):
        indices = (undecided if columns is None else columns[undecided])[None] + start
        values, own = search.values(found.order, indices[0])[None], found.values[:, None]
        nearer = (values < own) | ((values == own) & (indices < found.indices[:, None]))
        counts += np.count_nonzero(nearer & (row[undecided][None] >= low[:, None]), axis=1)
    return counts


def _merge_nearest(
    search: _Search,
    order: _Order,
    best: tuple[np.ndarray, np.ndarray],
    row: np.ndarray,
    start: int,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Merges one block's row of scores into a query's k nearest so far (indices, values)."""
    limit = best[1][-1] if len(best[0]) == k else np.inf
    enough = _enough(row, k)
    if np.isfinite(enough):
        # The k lowest scores need not be the k nearest, but no image further than all of them is.
        limit = min(limit, search.largest_value(order, enough))
    high = np.finfo(np.float32).max
    if np.isfinite(limit):
        high = search.score_bounds(order, np.float64(limit))[1]
    columns = np.flatnonzero(row <= high) + start
    indices = np.concatenate([best[0], columns])
    values = np.concatenate([best[1], search.values(order, columns)])
    by_value = np.argsort(values, kind="stable")[:k]
    return indices[by_value], values[by_value]


def _enough(row: np.ndarray, k: int) -> np.float32:
    """Returns a score that k images of a row, and few others, do not exceed; infinity if none."""
    if len(row) < k:
        return np.float32(np.inf)
    # Of 8 k groups k have no larger minimum, and minima are many times faster than a partition.
    depth = max(1, len(row) // (8 * k))
    width = len(row) // depth
    minima = row[: depth * width].reshape(depth, width).min(axis=0)
    return np.partition(minima, k - 1)[k - 1]


def _furthest(search: _Search, order: _Order, row: np.ndarray, start: int) -> float:
    """Returns a query's largest value among the images of a block's row of finite scores."""
    near_top = row.max() - np.float32(2 * search.margin(order, search.reach))
    return search.values(order, np.flatnonzero(row >= near_top) + start).max()


def _score_blocks(search: _Search, orders: list[_Order]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (gallery slice, writable float32 (queries, gallery images) scores), junk at infinity.

    Every call of the compiled product has one shape, the last tiles being padded.
    """
    tile = search.tile[1]
    queries = slice(orders[0].query, orders[-1].query + 1)
    query = _padded(search.query.features[queries], search.tile[0])
    junk = search.gallery.pids == JUNK
    for columns in _slices(0, len(junk), search.block_size // tile * tile):
        tiles = [
            _scores(query, _padded(search.gallery.features[part], tile), search.centre)
            for part in _slices(columns.start, columns.stop, tile)
        ]
        scores = np.concatenate(tiles, axis=1)
        scores = scores[: len(orders), : columns.stop - columns.start]
        if search.rescore is not None:
            for order, row in zip(orders, scores, strict=True):
                row *= np.float32(order.weight)
                row += order.offset[columns].astype(np.float32)
        scores[:, junk[columns]] = np.inf
        yield columns, scores


@jax.jit
def _scores(query: jax.Array, gallery: jax.Array, centre: jax.Array) -> jax.Array:
    """Returns |g|^2 - 2 q.g about a centre: the squared distance less |q|^2, float32 (Q, G)."""
    query, gallery = query - centre[None], gallery - centre[None]
    # HIGHEST, lest GPUs and TPUs multiply in less than float32.
    products = jnp.matmul(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(gallery * gallery, axis=1)[None] - 2.0 * products


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
