import numpy as np
import pytest

from reid_jax.evaluation.search import prepare, score_blocks
from tests.evaluation.test_ranking import descriptors


@pytest.mark.parametrize("weight", [None, 0.0, 0.3])
@pytest.mark.parametrize("dim", [8, 1536])
@pytest.mark.parametrize("kind", ["normal", "heavy", "outlier", "offset", "relu"])
def test_scores_err_by_less_than_half_the_margin(rng, dim, kind, weight):
    features = rng.standard_normal((300, dim))
    if kind == "heavy":
        features = rng.standard_cauchy((300, dim))
    elif kind == "outlier":
        features[-1] *= 1e4
    elif kind == "offset":
        features += 1e3
    elif kind == "relu":
        features = np.maximum(features, 0)
    query = descriptors(features[:40], np.ones(40), np.zeros(40))
    gallery = descriptors(features[40:], np.ones(260), np.zeros(260))
    offsets = rng.standard_normal((40, 260)) * rng.uniform(0, 100, (40, 1))
    rescore = None if weight is None else lambda i: (weight, offsets[i])
    search = prepare(query, gallery, 512, rescore)
    orders = [search.order(i) for i in range(40)]
    ((_, scores),) = score_blocks(search, orders)
    norms = np.linalg.norm(gallery.features - search.centre.astype(np.float64), axis=1)
    for i, order in enumerate(orders):
        values = search.values(order, np.arange(260))
        low, high = (b.astype(np.float64) for b in search.score_bounds(order, values))
        assert np.all(np.abs(scores[i] - (low + high) / 2) <= (high - low) / 4)
        assert np.all(norms <= search.largest_norm(order, values) * (1 + 1e-6))
