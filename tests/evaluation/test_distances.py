import numpy as np
import pytest

from reid_jax.evaluation import distances
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.distances import index_gallery, prepare, score_blocks
from reid_jax.evaluation.ranking import nearest
from tests.evaluation.test_ranking import brute_force_order, descriptors, random_set


@pytest.mark.parametrize("weight", [None, 0.0, 0.3])
@pytest.mark.parametrize("at_a_time", [1, 40])
@pytest.mark.parametrize("dim", [8, 2048])
@pytest.mark.parametrize("kind", ["normal", "heavy", "outlier", "offset", "relu", "equal"])
def test_scores_err_by_less_than_the_margin(rng, dim, kind, weight, at_a_time):
    features = rng.standard_normal((300, dim))
    if kind == "heavy":
        features = rng.standard_cauchy((300, dim))
    elif kind == "outlier":
        features[-1] *= 1e4
    elif kind == "offset":
        features += 1e3
    elif kind == "relu":
        features = np.maximum(features, 0)
    elif kind == "equal":  # Nearly all additions round in the same direction.
        features[:] = rng.uniform(0.5, 2, (300, 1))
    gallery = descriptors(features[40:], np.ones(260), np.zeros(260))
    offsets = rng.standard_normal((40, 260)) * rng.uniform(0, 100, (40, 1))
    for start in range(0, 40, at_a_time):
        part = features[start : start + at_a_time]
        query = descriptors(part, np.ones(at_a_time), np.zeros(at_a_time))
        own = offsets[start:]
        rescore = None if weight is None else lambda i, own=own: (weight, own[i])
        search = prepare(query, gallery, 512, rescore)
        orders = [search.order(i) for i in range(at_a_time)]
        ((_, scores),) = score_blocks(search, orders)
        norms = np.linalg.norm(gallery.features - search.centre.astype(np.float64), axis=1)
        for row, order in zip(scores, orders, strict=True):
            values = search.values(order, np.arange(260))
            low, high = (b.astype(np.float64) for b in search.score_bounds(order, values))
            assert np.all(np.abs(row - (low + high) / 2) <= (high - low) / 2)
            assert np.all(norms <= search.largest_norm(order, values) * (1 + 1e-6))


def test_equal_numbers_in_all_dimensions_are_ordered_exactly(rng):
    """Pairs of images on both sides of a query, one a hundred thousandth further away."""
    away = rng.uniform(0.3, 0.9, 400)
    sides = [1 + away, 1 - away * (1 + rng.uniform(-1e-5, 1e-5, 400)), np.full(400, -3)]
    features = np.repeat(1.1 * np.concatenate(sides)[:, None], 2048, axis=1)
    gallery = descriptors(features, np.arange(1200), np.zeros(1200))
    asked = np.repeat(1.1 * np.array([[0.999], [1], [1.001]]), 2048, axis=1)
    query = descriptors(asked, np.arange(3), np.ones(3))
    for k in range(1, 100, 4):
        indices, _ = nearest(query, gallery, k)
        for i in range(3):
            np.testing.assert_array_equal(indices[i], brute_force_order(query, gallery, i)[0][:k])


def first(gallery, count):
    return Descriptors(gallery.features[:count], gallery.pids[:count], gallery.camids[:count])


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_an_index_that_grows_ranks_as_one_of_the_whole_gallery(rng, offset, monkeypatch):
    query, gallery = (random_set(rng, n, dim=24, integers=False) for n in (6, 300))
    gallery.features[40:] += np.float32(offset)  # Later images are elsewhere.
    query.features[3:] += np.float32(offset)
    looked_at = []
    exactly = distances.squared_distances

    def counted(point, points, indices=None):
        looked_at.append(len(points))
        return exactly(point, points, indices)

    index = None
    for count in (30, 50, 50, 59, 60, 110, 300):
        monkeypatch.setattr(distances, "squared_distances", counted)
        index = index_gallery(first(gallery, count), index)
        monkeypatch.undo()
        norms = np.linalg.norm(index.gallery.features - index.centre.astype(np.float64), axis=1)
        assert index.reach == pytest.approx(norms.max())
        found, _ = nearest(query, index, 10)
        for i in range(6):
            np.testing.assert_array_equal(
                found[i], brute_force_order(query, first(gallery, count), i)[0][:10]
            )
    # Only the new images, and all of them once there are as many new ones as before.
    assert looked_at == [30, 20, 9, 60, 50, 300]


def test_an_index_refuses_new_images_that_are_not_finite(rng):
    gallery = random_set(rng, 20, integers=False)
    index = index_gallery(first(gallery, 15))
    gallery.features[17, 1] = np.nan
    with pytest.raises(ValueError, match="gallery descriptors hold NaN"):
        index_gallery(gallery, index)
