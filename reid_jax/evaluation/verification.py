"""Verification: do two images show the same person? ROC over all pairs of query and gallery.

A pair is accepted if its distance is at most a threshold. The pairs are those that the protocol of
`ranking` allows: a query with a gallery image that is not junk and not of the query's own identity
*and* camera. A pair of one identity is positive. All others are negative, also those with
distractors. Junk queries are in no pair.

The result is exact: a distance is the float32 that `ranking.nearest` and `Gallery.search` give for
the pair, and depends on no block size. It is computed by a float64 matrix product whose rounding
error is bounded. If the bounds round to different float32 numbers, which happens to one pair in a
hundred thousand, the pair's distance is computed from float64 differences instead.

Positive pairs are few, and the distances of all are kept. Negative pairs are not: each block is
sorted, and the negative pairs below and up to each distinct distance of a positive pair are
counted. These counts determine the whole ROC, because its true positive rate changes at no other
distance. So memory holds one block, and 50 bytes a positive pair.
"""

import dataclasses
import numbers

import numpy as np

from reid_jax.data.identities import JUNK
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import (
    BLOCK_SIZE,
    Order,
    Rescore,
    Search,
    mask,
    prepare,
    take_orders,
)
from reid_jax.runtime import hosts
from reid_jax.runtime.progress import Progress

#: False positive rates at which an evaluation reports thresholds.
RATES = (1e-1, 1e-2, 1e-3, 1e-4)

# Bins of the histograms between the smallest and the largest possible distance.
_BINS = 1000


class NoPairs(ValueError):
    """There is no positive pair, or no negative one."""


@dataclasses.dataclass(frozen=True, eq=False)
class VerificationResult:
    """Result of `evaluate_verification`.

    Attributes:
        AUC: area under the ROC curve, in [0, 1]; pairs at equal distances count half.
        EER: equal error rate, in [0, 1]: the false positive rate at which the ROC curve, its points
            joined by lines, has as many false negatives.
        distances: float32 (U,), the distinct distances of positive pairs, ascending.
        tpr: float64 (U,), shares of the positive pairs at most that far apart.
        fpr: float64 (U,), the same shares of the negative pairs.
        num_positive: positive pairs.
        num_negative: negative pairs.
        edges: float32 (B + 1,), bounds of the histograms' bins.
        positive_histogram: int64 (B,), positive pairs by distance.
        negative_histogram: int64 (B,), negative pairs by distance.
    """

    AUC: float
    EER: float
    distances: np.ndarray
    tpr: np.ndarray
    fpr: np.ndarray
    num_positive: int
    num_negative: int
    edges: np.ndarray
    positive_histogram: np.ndarray
    negative_histogram: np.ndarray

    def at(self, fpr: float) -> tuple[float, float | None]:
        """The highest true positive rate at a false positive rate, and its threshold.

        Args:
            fpr: the largest share of negative pairs to accept, in [0, 1].

        Returns:
            The true positive rate, and the threshold: the largest distance of a positive pair at
            which at most this share of the negative pairs is accepted. 0 and None if that is no
            distance, because too many negative pairs are nearer than the nearest positive pair.

        Raises:
            ValueError: `fpr` is not a number in [0, 1].
        """
        if not (isinstance(fpr, numbers.Real) and 0 <= fpr <= 1):
            raise ValueError(f"fpr is {fpr!r}; it must be a number from 0 to 1")
        i = int(np.searchsorted(self.fpr, fpr, "right")) - 1
        return (0.0, None) if i < 0 else (float(self.tpr[i]), float(self.distances[i]))

    def summary(self) -> dict[str, object]:
        """AUC, EER, rates and thresholds for JSON; the keys of rates are texts such as `0.001`."""
        rates = {f"{rate:g}": self.at(rate) for rate in RATES}
        return {
            "positive_pairs": self.num_positive,
            "negative_pairs": self.num_negative,
            "AUC": self.AUC,
            "EER": self.EER,
            "tpr_at_fpr": {name: tpr for name, (tpr, _) in rates.items()},
            "thresholds": {
                "EER": self.at(self.EER)[1],
                **{name: threshold for name, (_, threshold) in rates.items()},
            },
        }


def evaluate_verification(
    query: Descriptors,
    gallery: Descriptors,
    *,
    block_size: int = BLOCK_SIZE,
    rescore: Rescore | None = None,
    progress: Progress = None,
    team: hosts.Team = hosts.ALONE,
) -> VerificationResult:
    """Score how well distances separate pairs of one identity from the others.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        block_size: at most this many gallery images, and at most the smaller of it and 256 queries,
            have their distances in memory at a time. Changes speed and memory, never the result.
        rescore: as for `match_ranks`. The distance of a pair is then w d^2 + offset.
        progress: called with progress messages; None disables them.
        team: `hosts.EVERYBODY` if all hosts call with the same images, to share the work.

    Returns:
        The scores, equal to those of scikit-learn's `roc_curve` and `roc_auc_score` on the labels
        and negative distances of all pairs.

    Raises:
        NoPairs: there is no positive or no negative pair.
        ValueError: as `match_ranks`.
    """
    own = team.part(len(query.pids))
    search = prepare(
        Descriptors(query.features[own], query.pids[own], query.camids[own]),
        gallery,
        block_size,
        None if rescore is None else lambda i: rescore(own.start + i),
    )
    positive, bounds = (team.rows(rows) for rows in _positive_distances(search))
    if not len(positive):
        raise NoPairs(
            "no positive pair, and verification needs one: a query and a gallery image of one "
            "identity (pid > 0) under different cameras"
        )
    distances, repeats = np.unique(positive, return_counts=True)
    edges = np.linspace(bounds[:, 0].min(), bounds[:, 1].max(), _BINS + 1).astype(np.float32)
    counts = _count_negatives(search, distances, edges, progress)
    below, upto, histogram = (team.rows(count[None]).sum(axis=0) for count in counts)
    negatives = int(histogram.sum())
    if not negatives:
        raise NoPairs(
            "no negative pair, and verification needs one: a query and a gallery image of "
            "different identities"
        )
    accepted = np.cumsum(repeats)
    before, fpr = below / negatives, upto / negatives
    return VerificationResult(
        AUC=float(np.sum(repeats * (1 - (before + fpr) / 2)) / len(positive)),
        EER=_equal_error_rate(below, upto, accepted, negatives),
        distances=distances,
        tpr=accepted / len(positive),
        fpr=fpr,
        num_positive=len(positive),
        num_negative=negatives,
        edges=edges,
        positive_histogram=_histogram(np.sort(positive), edges),
        negative_histogram=histogram,
    )


def table(result: VerificationResult) -> str:
    """The scores in per cent, and thresholds, as two lines of text."""
    points = []
    for rate in RATES:
        tpr, threshold = result.at(rate)
        distance = "none" if threshold is None else f"{threshold:.4f}"
        points.append(f"{100 * tpr:.1f} at {rate:g} ({distance})")
    return (
        f"verification, {result.num_positive:,} positive and {result.num_negative:,} negative "
        f"pairs: AUC {100 * result.AUC:.1f}, EER {100 * result.EER:.1f}\n"
        f"TPR at FPR (distance): {', '.join(points)}"
    )


def _positive_distances(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """The distances of all positive pairs, float32 (P,), and bounds of all pairs, (1, 2)."""
    found, low, high = [], np.inf, -np.inf
    for orders in take_orders(search):
        for order in orders:
            same = search.same_identity(order.query)
            matches = same[search.gallery.camids[same] != search.query.camids[order.query]]
            found.append(_rounded(search, search.values(order, matches)))
            square = order.weight * (search.query_norms[order.query] + search.reach) ** 2
            low, high = min(low, order.least), max(high, square + order.largest)
    bounds = np.array([[low, high]])
    return np.concatenate(found), bounds if search.rescore else np.sqrt(bounds)


def _count_negatives(
    search: Search, distances: np.ndarray, edges: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the negative pairs, block by block.

    Args:
        search: queries and gallery.
        distances: float32 (U,), ascending.
        edges: float32 (B + 1,), ascending.
        progress: called with progress messages; None disables them.

    Returns:
        int64 (U,) pairs nearer than each distance, int64 (U,) pairs at most that far, and int64
        (B,) pairs in each bin.
    """
    below, upto = np.zeros((2, len(distances)), np.int64)
    histogram = np.zeros(len(edges) - 1, np.int64)
    width = max(1, search.block_size // search.tile[1]) * search.tile[1]
    for orders in take_orders(search, progress, "compared the gallery with"):
        orders = [o for o in orders if search.query.pids[o.query] != JUNK]
        for first in range(0, len(search.valid), width) if orders else ():
            columns = slice(first, min(first + width, len(search.valid)))
            block = _distances(search, orders, columns)
            block[:, ~search.valid[columns]] = np.inf
            for order, row in zip(orders, block, strict=True):
                mask(row, search.same_identity(order.query), columns)
            block = np.sort(block, axis=None)
            block = block[: np.searchsorted(block, np.float32(np.inf))]
            below += np.searchsorted(block, distances, "left")
            upto += np.searchsorted(block, distances, "right")
            histogram += _histogram(block, edges)
    return below, upto, histogram


def _distances(search: Search, orders: list[Order], columns: slice) -> np.ndarray:
    """The distances of some queries to a block of the gallery, float32 (queries, B)."""
    queries = [order.query for order in orders]
    query, query_norms = _centred(search, search.query.features[queries])
    slack = (2 * len(search.centre) + 64) * 2.0**-53
    block = np.empty((len(orders), columns.stop - columns.start), np.float32)
    for first in range(columns.start, columns.stop, search.tile[1]):
        part = slice(first, min(first + search.tile[1], columns.stop))
        gallery, norms = _centred(search, search.gallery.features[part])
        square = query @ gallery.T
        square *= -2
        square += query_norms[:, None] ** 2
        square += norms**2
        # A product of D terms errs by at most D units of 2^-53 |q| |g|, in whatever order they are
        # added. The norms, the centring and the float64 differences err by less.
        margin = slack * (query_norms[:, None] + norms.max()) ** 2
        # Every operation from here on is monotone, so the distance is between these two.
        low = _ordered(search, orders, np.maximum(square - margin, 0), part)
        high = _ordered(search, orders, square + margin, part)
        for row in np.flatnonzero((low != high).any(axis=1)):
            undecided = np.flatnonzero(low[row] != high[row])
            values = search.values(orders[row], part.start + undecided)
            low[row, undecided] = _rounded(search, values)
        block[:, part.start - columns.start : part.stop - columns.start] = low
    return block


def _centred(search: Search, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) descriptors relative to the centre, float64, and their norms."""
    centred = np.subtract(features, search.centre[None], dtype=np.float64)
    return centred, np.sqrt(np.einsum("nd,nd->n", centred, centred))


def _ordered(search: Search, orders: list[Order], square: np.ndarray, part: slice) -> np.ndarray:
    """Distances (queries, B), float32, from their squares, which may be overwritten."""
    for order, row in zip(orders, square, strict=True):
        if order.offset is not None:
            row *= order.weight
            row += order.offset[part]
    return _rounded(search, square)


def _rounded(search: Search, values: np.ndarray) -> np.ndarray:
    """Float32 distances from the values that order the gallery, as in `ranking.nearest`."""
    return (np.sqrt(values) if search.rescore is None else values).astype(np.float32)


def _histogram(ascending: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Count sorted values by bin; the first and the last bin include the values outside."""
    inner = np.searchsorted(ascending, edges[1:-1])
    return np.diff(inner, prepend=0, append=len(ascending))


def _equal_error_rate(
    below: np.ndarray, upto: np.ndarray, accepted: np.ndarray, negatives: int
) -> float:
    """The equal error rate from counts at the distinct distances of positive pairs.

    Args:
        below: int64 (U,), negative pairs nearer than each distance.
        upto: int64 (U,), negative pairs at most that far.
        accepted: int64 (U,), positive pairs at most that far.
        negatives: all negative pairs.
    """
    positives = int(accepted[-1])
    # The corners of the ROC curve: before and at each distance, and the end.
    false = np.append(np.stack([below, upto], axis=1).ravel(), negatives)
    true = np.stack([np.append(0, accepted[:-1]), accepted], axis=1).ravel()
    true = np.append(true, positives)
    # In whole numbers, so that a corner at which both errors are equal is found exactly.
    excess = false * positives + true * negatives - negatives * positives
    corner = int(np.argmax(excess >= 0))
    around = slice(max(corner - 1, 0), corner + 1)
    return float(np.interp(0, excess[around], false[around] / negatives))
