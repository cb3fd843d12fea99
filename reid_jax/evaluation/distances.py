"""Distances from queries to a gallery, block by block: exact order, with few of them in memory.

XLA computes blocks of ``|g|^2 - 2 q.g`` in float32, with the centre of the gallery moved to the
origin. These scores order the gallery for a query like the distances do, up to a rounding error
whose size is bounded (`Search.margin`). The scores leave a few images undecided, which are then
compared by differences in float64 (`Search.values`). Callers therefore get the order of the float64
distances for every device, block size and tiling of the matrix product, and no row is sorted.

A gallery can be ordered by ``w d^2 + offset`` instead of the squared distance ``d^2``, with one
weight per query and one offset per pair of query and gallery image (`reranking`). Scores and their
bounds follow.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.evaluation.descriptor_sets import Descriptors, check, check_dimensions
from reid_jax.runtime.counts import as_count
from reid_jax.runtime.devices import memory_set_by
from reid_jax.runtime.forks import check_not_forked
from reid_jax.runtime.progress import Progress, Tracker

BLOCK_SIZE = 16384

# From a query's index to a weight w >= 0 and an offset, float64 (G,): the gallery is ordered by
# w d^2 + offset, d^2 being the squared Euclidean distance.
Rescore = Callable[[int], tuple[float, np.ndarray]]

# The matrix product's tile, (queries, gallery images): the fastest for XLA's product on CPUs.
_TILE = (256, 1024)
# For one query there is no product, and more images at a time mean fewer calls.
_TILE_OF_ONE = 4096

# Dimensions whose products are added at a time. The bound on the error of short sums is small.
_CHUNK = 256
# The relative error of one rounding in float32.
_UNIT = 2.0**-24
# What centring and rounding the threshold add to the error of a score, in units of (|q| + |g|)^2.
_CENTRED = 8

# The additional error of `rescore`, in units of each rounded value: weight, product, offset and
# sum.
_RESCORED = 4

# Offsets in memory at a time, 256 MiB: enough for all queries of a tile up to 131,072 images.
_OFFSETS = 2**25

# Rows whose float64 differences are in memory at a time: few enough for a core's cache.
_EXACT_ROWS = 128


class Order(NamedTuple):
    """A query and the value it orders the gallery by: ``weight * d^2 + offset``."""

    query: int
    weight: float = 1.0
    offset: np.ndarray | None = None  # float64 (G,); None means zero
    least: float = 0.0  # the smallest offset
    largest: float = 0.0  # the largest absolute value of an offset


class Index(NamedTuple):
    """A gallery, and the values that are computed once for all searches in it."""

    gallery: Descriptors
    centre: np.ndarray  # float32 (D,), the mean of the gallery or of its first images
    averaged: int  # the number of images in that mean
    reach: float  # the largest distance of a gallery image from the centre
    by_pid: np.ndarray  # the gallery's indices sorted by pid, ascending within a pid
    sorted_pids: np.ndarray


class Search(NamedTuple):
    """A query set, a gallery, and the values that are computed once for both."""

    query: Descriptors
    gallery: Descriptors
    centre: np.ndarray  # these four as in `Index`
    reach: float
    by_pid: np.ndarray
    sorted_pids: np.ndarray
    query_norms: np.ndarray  # float64 (Q,), distances from the centre
    valid: np.ndarray  # bool (G,): False for images that are ranked for no query, such as junk
    block_size: int
    tile: tuple[int, int]
    rescore: Rescore | None

    def order(self, i: int) -> Order:
        """Return query i's order, from `rescore`."""
        if self.rescore is None:
            return Order(i)
        weight, offset = self.rescore(i)
        shape = self.gallery.pids.shape
        if not (isinstance(offset, np.ndarray) and offset.dtype == np.float64):
            raise ValueError(f"rescore({i}) must return a float64 array of offsets {shape}")
        if offset.shape != shape:
            raise ValueError(
                f"rescore({i}) returns offsets of shape {offset.shape}, but the gallery has {shape}"
            )
        least, largest = offset.min(), offset.max()
        size = max(abs(least), abs(largest))
        reach = 4 * weight * (self.query_norms[i] + self.reach) ** 2
        if not (weight >= 0 and reach + 4 * size <= np.finfo(np.float32).max):
            raise ValueError(
                f"rescore({i}) returns the weight {weight} and offsets from {least} to {largest}: "
                "the weight must be at least 0, and no sum may overflow float32"
            )
        return Order(i, float(weight), offset, least, size)

    def same_identity(self, i: int) -> np.ndarray:
        """Return the ascending gallery indices of query i's identity; empty for a distractor."""
        pid = self.query.pids[i]
        if pid <= DISTRACTOR:
            return np.empty(0, np.int64)
        first = np.searchsorted(self.sorted_pids, pid)
        last = np.searchsorted(self.sorted_pids, pid, "right")
        return self.by_pid[first:last]

    def squared_distances(self, i: int, indices: np.ndarray) -> np.ndarray:
        """Return query i's squared distances to some gallery images, float64."""
        point, points = self.query.features[i], self.gallery.features
        if self.reach == 0:
            # The network has collapsed: all images tie, so scores cannot decide any order.
            return np.broadcast_to(squared_distances(point, points[:1]), indices.shape)
        return squared_distances(point, points, indices)

    def values(self, order: Order, indices: np.ndarray) -> np.ndarray:
        """Return the values by which a query orders some gallery images, float64."""
        if order.offset is None:
            return self.squared_distances(order.query, indices)
        offset = order.offset[indices]
        if order.weight == 0:
            return offset
        return order.weight * self.squared_distances(order.query, indices) + offset

    def score_bounds(self, order: Order, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores below which an image is surely nearer, and above which surely further.

        Args:
            order: the query's order.
            values: float64, values by which the query orders.

        Returns:
            Two float32 arrays of the shape of `values`.
        """
        norm = self.query_norms[order.query]
        margin = self.margin(order, self.largest_norm(order, values))
        score = values - order.weight * norm**2
        return (score - margin).astype(np.float32), (score + margin).astype(np.float32)

    def largest_value(self, order: Order, score: np.float32) -> float:
        """Return a value that no image with at most this score exceeds."""
        value = float(score) + order.weight * self.query_norms[order.query] ** 2
        norm = self.largest_norm(order, value + self.margin(order, self.reach))
        return value + self.margin(order, norm)

    def largest_norm(self, order: Order, values: np.ndarray | float) -> np.ndarray | float:
        """Return the distance from the centre that no image of at most this value exceeds."""
        if order.weight == 0:
            return self.reach
        # By the triangle inequality. An outlier in the gallery then widens the margin only for
        # itself.
        squared = np.maximum(values - order.least, 0) / order.weight
        return np.minimum(self.reach, self.query_norms[order.query] + np.sqrt(squared))

    def margin(self, order: Order, reach: np.ndarray | float) -> np.ndarray | float:
        """Return a bound on the error of a score of images whose norm is at most `reach`.

        However a device adds n products, their sum errs by at most n units of the sum of their
        absolute values, which is at most |g|^2 + 2 |q| |g| for both sums of a score. Equal numbers
        in all dimensions come within a factor of eight of that, because they round alike. Products
        are summed in chunks, and then over the chunks; for one query, in one sum.
        """
        norm, dim = self.query_norms[order.query], len(self.centre)
        square = (norm + reach) ** 2
        # The last term covers products that underflow the smallest normal float32.
        tiny = np.finfo(np.float32).tiny
        chunk = dim if self.tile[0] == 1 else min(dim, _CHUNK)
        added = chunk + -(-dim // chunk)
        units = added * reach * (reach + 2 * norm) + _CENTRED * square
        margin = order.weight * (_UNIT * units + dim * tiny)
        if order.offset is not None:
            margin += _RESCORED * _UNIT * (order.weight * square + order.largest)
            margin += tiny * (square + 1)
        return margin


def index_gallery(gallery: Descriptors, earlier: Index | None = None) -> Index:
    """Check a gallery and compute the values that all searches in it need.

    Args:
        gallery: descriptors of G images.
        earlier: the index of the gallery's first images. Then only the other images are read, until
            there are as many of them as of the first. Results are exact for any centre, and fastest
            for the mean.

    Raises:
        ValueError: as `check_sets`.
    """
    count = 0 if earlier is None else len(earlier.gallery.pids)
    if earlier is None or len(gallery.pids) >= 2 * earlier.averaged:
        gallery = check(gallery, "gallery")
        averaged = len(gallery.pids)
        mean = np.mean(gallery.features, axis=0, dtype=np.float64)
        centre = np.asarray(mean, np.float32)
        reach = np.sqrt(squared_distances(centre, gallery.features).max())
    else:
        _, centre, averaged, reach, *_ = earlier
        new = Descriptors(gallery.features[count:], gallery.pids[count:], gallery.camids[count:])
        if len(new.pids):
            new = check(new, "gallery")
            reach = max(reach, np.sqrt(squared_distances(centre, new.features).max()))
    by_pid = np.argsort(gallery.pids, kind="stable")
    return Index(gallery, centre, averaged, reach, by_pid, gallery.pids[by_pid])


def prepare(
    query: Descriptors,
    gallery: Descriptors | Index,
    block_size: int,
    rescore: Rescore | None = None,
) -> Search:
    """Check the input and compute the values that all searches need.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images, or their index from `index_gallery`.
        block_size: number of gallery images whose scores are in memory at a time, for at most the
            smaller of `block_size` and 256 queries.
        rescore: weight and offsets of each query, or None to order by distance.

    Raises:
        ValueError: as `check_sets`, and if block_size is below 1 or squares of the descriptors'
            lengths overflow float32.
        RuntimeError: this process was forked from one that had used JAX.
    """
    check_not_forked()
    block_size = as_count(block_size, "block_size")
    query = check(query, "query")
    index = gallery if isinstance(gallery, Index) else index_gallery(gallery)
    gallery, centre, _, reach, by_pid, sorted_pids = index
    check_dimensions(query, gallery)
    query_norms = np.sqrt(squared_distances(centre, query.features))
    if 4 * (query_norms.max() + reach) ** 2 > np.finfo(np.float32).max:
        raise ValueError(
            f"the longest descriptor has length {max(query_norms.max(), reach):.1e}, whose square "
            "overflows float32: check the network, or scale the descriptors"
        )
    # A few queries need no product of 256 rows; powers of two keep the number of programs small.
    queries = min(_TILE[0], block_size, 1 << (len(query.pids) - 1).bit_length())
    if rescore is not None:
        queries = min(queries, max(1, _OFFSETS // len(by_pid)))
    return Search(
        query,
        gallery,
        centre,
        reach,
        by_pid,
        sorted_pids,
        query_norms,
        gallery.pids != JUNK,
        block_size,
        (queries, min(_TILE_OF_ONE if queries == 1 else _TILE[1], block_size)),
        rescore,
    )


def take_orders(
    search: Search,
    progress: Progress = None,
    verb: str = "ranked the gallery for",
) -> Iterator[list[Order]]:
    """Yield the orders of as many queries as a tile holds at a time, and report progress."""
    total = len(search.query.pids)
    with Tracker(progress, total, verb) as tracker:
        for queries in _slices(0, total, search.tile[0]):
            yield [search.order(i) for i in range(queries.start, queries.stop)]
            tracker.update(queries.stop)


def score_blocks(search: Search, orders: list[Order]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (gallery slice, writable float32 (queries, gallery images) scores).

    The scores of invalid images are infinite, and are not computed. The calls of the compiled
    function have few shapes: the last tile of a block is padded.
    """
    tile = search.tile[1]
    queries = slice(orders[0].query, orders[-1].query + 1)
    query = _padded(search.query.features[queries], search.tile[0])
    for columns in _slices(0, len(search.valid), search.block_size // tile * tile):
        features, valid = search.gallery.features[columns], search.valid[columns]
        chosen = None if valid.all() else np.flatnonzero(valid)
        count = len(features) if chosen is None else len(chosen)
        with memory_set_by("eval.block_size, or block_size of a search"):
            tiles = [np.empty((search.tile[0], 0), np.float32)] + [
                _scores(
                    query,
                    _padded_tile(features[part if chosen is None else chosen[part]], tile),
                    search.centre,
                )
                for part in _slices(0, count, tile)
            ]
            scores = np.concatenate(tiles, axis=1)[: len(orders), :count]
        if search.rescore is not None:
            offsets = columns.start + (np.arange(count) if chosen is None else chosen)
            for order, row in zip(orders, scores, strict=True):
                # In float64, because the weight of tiny descriptors overflows float32.
                row[:] = row * np.float64(order.weight)
                assert order.offset is not None
                row += order.offset[offsets].astype(np.float32)
        if chosen is not None:
            compact = scores
            scores = np.full((len(orders), len(features)), np.inf, np.float32)
            scores[:, chosen] = compact
        yield columns, scores


@jax.jit
def _scores(query: jax.Array, gallery: jax.Array, centre: jax.Array) -> jax.Array:
    """Return |g|^2 - 2 q.g about a centre: the squared distance less |q|^2, float32 (Q, G)."""
    query, gallery = query - centre[None], gallery - centre[None]
    if len(query) == 1:  # Read each image once: a product would read it again.
        return jnp.sum(gallery * (gallery - 2.0 * query), axis=1)[None]
    products = jnp.zeros((len(query), len(gallery)), jnp.float32)
    squares = jnp.zeros(len(gallery), jnp.float32)
    for q, g in zip(_chunks(query), _chunks(gallery), strict=True):
        # Without HIGHEST, GPUs and TPUs may multiply with less than float32 precision.
        products += jnp.matmul(q, g.T, precision=jax.lax.Precision.HIGHEST)
        squares += jnp.sum(g * g, axis=1)
    return squares[None] - 2.0 * products


def _chunks(features: jax.Array) -> list[jax.Array]:
    return [features[:, i : i + _CHUNK] for i in range(0, features.shape[1], _CHUNK)]


def squared_distances(
    point: np.ndarray, points: np.ndarray, indices: np.ndarray | None = None
) -> np.ndarray:
    """Return the squared distances from (D,) to the rows of (N, D) picked by indices, float64.

    Equal rows have the same distance at any index, so that equal images tie exactly.
    """
    length = len(points) if indices is None else len(indices)
    squared = np.empty(length)
    for part in _slices(0, length, _EXACT_ROWS):
        rows = points[part] if indices is None else points[indices[part]]
        difference = np.subtract(rows, point[None], dtype=np.float64)
        squared[part] = np.square(difference, out=difference).sum(axis=1)
    return squared


def mask(row: np.ndarray, indices: np.ndarray, columns: slice) -> None:
    """Set the scores of those ascending gallery indices that lie in the block to infinity."""
    first, last = np.searchsorted(indices, [columns.start, columns.stop])
    row[indices[first:last] - columns.start] = np.inf


def _padded_tile(rows: np.ndarray, tile: int) -> np.ndarray:
    return _padded(rows, tile if len(rows) > _TILE[1] else min(_TILE[1], tile))


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Return the rows, padded with zero rows to a length."""
    if len(rows) == length:
        return rows
    return np.concatenate([rows, np.zeros((length - len(rows), rows.shape[1]), rows.dtype)])


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `step` from `start` to `stop`."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))
