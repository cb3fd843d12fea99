"""Market-1501's multi-query protocol: one descriptor pooled from several images of a person.

Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. For each query, all
hand-drawn boxes (`gt_bbox`) of its identity under its camera are described. The average or the
maximum of their descriptors, dimension by dimension, replaces the query's own descriptor. Identity
and camera stay the query's, so the same gallery images match it and the same are ignored.

The authors' program scales the descriptor of each box to length one, pools, and scales the result
to length one again ("another normalization").
"""

import collections

import numpy as np

from reid_jax.choices import QUERY_POOLINGS
from reid_jax.data.splits import Split
from reid_jax.evaluation.descriptor_sets import Descriptors


def check(how: str) -> None:
    """Raise ValueError if `how` is not one of `QUERY_POOLINGS`."""
    if how not in QUERY_POOLINGS:
        raise ValueError(f"--multi-query is {how!r}; it must be one of {', '.join(QUERY_POOLINGS)}")


def pool(
    query: Split | Descriptors, boxes: Descriptors, how: str, normalize: bool = False
) -> Descriptors:
    """Pool the descriptors of each query's boxes.

    Sums are in float64, over values in sorted order, and rounded once, so the result does not
    depend on the order of the boxes.

    Args:
        query: Q queries. Only their pids and camids are used, so they need no descriptors.
        boxes: N images, as `layouts.read_multi_query` returns them; features (N, D) float32. Boxes
            that belong to no query are ignored.
        how: `average` or `max`.
        normalize: scale the pooled descriptor to length one. As in the authors' program, the
            descriptors of boxes and gallery must then already have length one.

    Returns:
        (Q, D) float32 features with the queries' pids and camids.

    Raises:
        ValueError: `how` is unknown, or a query has no box.
    """
    check(how)
    members = collections.defaultdict(list)
    for box, who in enumerate(zip(boxes.pids.tolist(), boxes.camids.tolist(), strict=True)):
        members[who].append(box)
    queries = list(zip(query.pids.tolist(), query.camids.tolist(), strict=True))
    features = np.empty((len(queries), boxes.features.shape[1]), np.float32)
    for row, (pid, camid) in zip(features, queries, strict=True):
        if not members[pid, camid]:
            raise ValueError(f"identity {pid} has no box under camera {camid} to pool")
        row[:] = _pooled(boxes.features[members[pid, camid]], how, normalize)
    return Descriptors(features, query.pids, query.camids)


def _pooled(features: np.ndarray, how: str, normalize: bool) -> np.ndarray:
    """Pool (N, D) float32 to (D,) float64."""
    if how == "max":
        pooled = features.max(axis=0).astype(np.float64)
    else:
        pooled = np.sort(features, axis=0).mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(pooled)
    return pooled / length if normalize and length > 0 else pooled
