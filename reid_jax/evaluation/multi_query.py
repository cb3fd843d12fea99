"""Market-1501's multi-query protocol: one descriptor pooled from several images of a person.

Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. For each query, all
hand-drawn boxes (`gt_bbox`) of its identity under its camera are described, and the average or the
maximum of their descriptors, dimension by dimension, takes the place of the query's own. Identity
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
    """Raises ValueError where `how` is none of `QUERY_POOLINGS`."""
    if how not in QUERY_POOLINGS:
        raise ValueError(f"--multi-query={how}: known are {', '.join(QUERY_POOLINGS)}")


def pool(
    query: Split | Descriptors, boxes: Descriptors, how: str, normalize: bool = False
) -> Descriptors:
    """Pools the descriptors of each query's boxes.

    Sums are in float64, of values in sorted order, and rounded once: the order of the boxes changes
    no bit.

    Args:
        query: Q queries, of which pids and camids alone are read: nobody has to describe them.
        boxes: N images, as `layouts.read_multi_query` gives them; features (N, D) float32. Boxes of
            nobody asked for are left out.
        how: `average` or `max`.
        normalize: scale what was pooled to length one. As in the authors' program, the boxes'
            descriptors and the gallery's are then of length one already.

    Returns:
        (Q, D) float32 features under the queries' pids and camids.

    Raises:
        ValueError: `how` is another, or a query has no box.
    """
    check(how)
    members = collections.defaultdict(list)
    for box, who in enumerate(zip(boxes.pids.tolist(), boxes.camids.tolist(), strict=True)):
        members[who].append(box)
    queries = list(zip(query.pids.tolist(), query.camids.tolist(), strict=True))
    features = np.empty((len(queries), boxes.features.shape[1]), np.float32)
    for row, (pid, camid) in zip(features, queries, strict=True):
        if not members[pid, camid]:
            raise ValueError(f"no box of identity {pid} under camera {camid} to pool")
        row[:] = _pooled(boxes.features[members[pid, camid]], how, normalize)
    return Descriptors(features, query.pids, query.camids)


def _pooled(features: np.ndarray, how: str, normalize: bool) -> np.ndarray:
    """(N, D) float32 to (D,) float64."""
    if how == "max":
        pooled = features.max(axis=0).astype(np.float64)
    else:
        pooled = np.sort(features, axis=0).mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(pooled)
    return pooled / length if normalize and length > 0 else pooled
