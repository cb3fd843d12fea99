"""Ranking and re-ranking as other programs do them, for comparison in `benchmarks/ranking.py`.

The functions follow the papers and formulas, in the form in which re-ID programs publish them: all
distances in one matrix, whole rows sorted, whole rows scored. Published programs differ in how well
they are vectorised; this is the better way, without a list comprehension over ranks, a matrix of
matches, or a temporary copy of the descriptors' squares.

The gallery must be without junk (pid -1), which these programs drop when they read a dataset.
"""

import os

import numpy as np

from reid_jax.evaluation.descriptor_sets import Descriptors


def distance_matrix(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute |p|^2 - 2 p.o + |o|^2 of all pairs.

    Args:
        points: float32 (P, D).
        others: float32 (O, D).

    Returns:
        float32 (P, O), squared Euclidean distances up to float32's rounding.
    """
    distances = points @ others.T
    distances *= -2
    distances += np.einsum("nd,nd->n", points, points)[:, None]
    distances += np.einsum("nd,nd->n", others, others)[None]
    return distances


def numpy_order(distances: np.ndarray) -> np.ndarray:
    """int64 (Q, G), each row's columns by distance, nearest first."""
    return np.argsort(distances, axis=1)


def torch_order(distances: np.ndarray) -> np.ndarray:
    """`numpy_order`, sorted by PyTorch on all cores."""
    import torch

    torch.set_num_threads(os.cpu_count())
    return torch.argsort(torch.from_numpy(distances), dim=1).numpy()


def score(
    order: np.ndarray, query: Descriptors, gallery: Descriptors, max_rank: int = 50
) -> tuple[float, np.ndarray]:
    """Compute mAP and CMC of sorted rows by Market-1501's protocol (Zheng et al., ICCV 2015).

    Args:
        order: int64 (Q, G), the gallery's indices, nearest first.
        query: descriptors of Q images.
        gallery: descriptors of G images, without junk.
        max_rank: length of the CMC curve.

    Returns:
        mAP in [0, 1] and the CMC curve, float64 (max_rank,), over the queries that have a match.
    """
    precisions, first = [], []
    positions = np.arange(1, len(gallery.pids) + 1)
    for row, pid, camid in zip(order, query.pids, query.camids, strict=True):
        same = gallery.pids[row] == pid
        matches = same[~(same & (gallery.camids[row] == camid))]
        if matches.any():
            precision = np.cumsum(matches) / positions[: len(matches)]
            precisions.append(precision[matches].mean())
            first.append(np.argmax(matches))
    hits = np.asarray(first)[:, None] < np.arange(1, max_rank + 1)[None]
    return float(np.mean(precisions)), hits.mean(axis=0)


def rerank(
    query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> np.ndarray:
    """k-reciprocal re-ranking over dense matrices of all images (Zhong et al., CVPR 2017).

    It has the steps, matrices and dtypes of the authors' program, which holds 20 bytes per pair of
    images while it sorts. That program leaves the scaled distances transposed in memory; here rows
    are contiguous, so they are sorted faster.

    Args:
        query: float32 (Q, D).
        gallery: float32 (G, D).
        k1: number of neighbours that can be reciprocal.
        k2: number of neighbours over which a set of neighbours is averaged, including the image
            itself.
        weight: weight of the original distance, lambda in equation 12.

    Returns:
        float32 (Q, G), the final distances.
    """
    points = np.concatenate([query, gallery])
    original = distance_matrix(points, points)
    original /= original.max(axis=1, keepdims=True)
    weights = np.zeros_like(original)
    ranked = np.argsort(original, axis=1).astype(np.int32)
    half = round(k1 / 2)
    for i in range(len(points)):
        # Equations 3 and 5: a neighbour's own reciprocal neighbours are added if two thirds of them
        # are already reciprocal neighbours.
        reciprocal = _reciprocal(ranked, i, k1)
        expanded = [reciprocal]
        for candidate in reciprocal:
            further = _reciprocal(ranked, candidate, half)
            if len(np.intersect1d(further, reciprocal)) > 2 / 3 * len(further):
                expanded.append(further)
        members = np.unique(np.concatenate(expanded))
        # Equation 7, scaled to sum to 1.
        near = np.exp(-original[i, members])
        weights[i, members] = near / near.sum()
    original = original[: len(query)]
    if k2 > 1:
        # Equation 11.
        averaged = np.zeros_like(weights)
        for i in range(len(points)):
            averaged[i] = weights[ranked[i, :k2]].mean(axis=0)
        weights = averaged
    holders = [np.flatnonzero(weights[:, i]) for i in range(len(points))]
    jaccard = np.zeros_like(original)
    for i in range(len(query)):
        # Equation 10: the sum of both rows' minima; the sum of their maxima is 2 minus it.
        minima = np.zeros(len(points), np.float32)
        for j in np.flatnonzero(weights[i]):
            minima[holders[j]] += np.minimum(weights[i, j], weights[holders[j], j])
        jaccard[i] = 1 - minima / (2 - minima)
    # Equation 12.
    return ((1 - weight) * jaccard + weight * original)[:, len(query) :]


def _reciprocal(ranked: np.ndarray, i: int, k: int) -> np.ndarray:
    """The k nearest neighbours of image i, and itself, that have i among their neighbours."""
    forward = ranked[i, : k + 1]
    backward = ranked[forward, : k + 1]
    return forward[np.any(backward == i, axis=1)]
