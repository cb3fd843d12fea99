"""The first match of queries: the gallery image of the same person that ranks best."""

import itertools

import numpy as np

from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import BLOCK_SIZE, Rescore, prepare, take_orders


def first_matches(
    query: Descriptors, gallery: Descriptors, rescore: Rescore | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the first match of every query in the order of `match_ranks`.

    Args:
        query: descriptors of Q images.
        gallery: descriptors of G images.
        rescore: see `match_ranks`.

    Returns:
        Indices into the gallery, int32 (Q,), and distances, float32 (Q,), both as `nearest` returns
        them; -1 and infinity for a query without a match.

    Raises:
        ValueError: as `match_ranks`.
    """
    search = prepare(query, gallery, BLOCK_SIZE, rescore)
    indices = np.full(len(search.query.pids), -1, np.int32)
    distances = np.full(len(search.query.pids), np.inf, np.float32)
    for order in itertools.chain.from_iterable(take_orders(search)):
        same = search.same_identity(order.query)
        matches = same[search.gallery.camids[same] != search.query.camids[order.query]]
        if len(matches):
            values = search.values(order, matches)
            first = int(np.argmin(values))  # The matches are ascending, so ties go to the lowest.
            indices[order.query] = matches[first]
            distances[order.query] = np.sqrt(values[first]) if rescore is None else values[first]
    return indices, distances
