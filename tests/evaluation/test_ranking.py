import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.evaluation import distances
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking, match_ranks, nearest

pytestmark = pytest.mark.filterwarnings("error")

BLOCK_SIZES = (1, 2, 7, 64)


def brute_force_order(query, gallery, i, rescore=None):
    """Valid gallery indices of query i by a stable sort of float64 distances, and the distances."""
    difference = gallery.features.astype(np.float64) - query.features[i].astype(np.float64)
    squared = np.square(difference).sum(axis=1)
    if rescore is not None:
        weight, offset = rescore(i)
        squared = weight * squared + offset
    identity = query.pids[i] > 0 and gallery.pids == query.pids[i]
    valid = (gallery.pids != -1) & ~(identity & (gallery.camids == query.camids[i]))
    order = np.argsort(squared, kind="stable")
    order = order[valid[order]]
    return order, squared[order]


def brute_force(query, gallery, max_rank):
    """CMC, mAP and mINP from whole sorted rankings, and the matches' ranks."""
    ranks, precisions, first_hits, penalties = [], [], [], []
    for i in range(len(query.pids)):
        order, _ = brute_force_order(query, gallery, i)
        hits = (gallery.pids[order] == query.pids[i]) & (query.pids[i] > 0)
        ranks.append(np.flatnonzero(hits) + 1)
        if not hits.any():
            precisions.append(np.nan)
            continue
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        precisions.append(np.mean(precision[hits]))
        first_hits.append(np.arange(max_rank) >= np.argmax(hits))
        penalties.append(hits.sum() / (np.flatnonzero(hits)[-1] + 1))
    return ranks, np.array(precisions), first_hits, penalties


def assert_equal_to_brute_force(query, gallery, block_size, max_rank=10):
    ranks, precisions, first_hits, penalties = brute_force(query, gallery, max_rank)
    for got, expected in zip(
        match_ranks(query, gallery, block_size=block_size), ranks, strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    if not first_hits:
        with pytest.raises(ValueError, match=f"none of the {len(ranks)} queries has a match"):
            evaluate_ranking(query, gallery, block_size=block_size)
        return
    result = evaluate_ranking(query, gallery, block_size=block_size, max_rank=max_rank)
    np.testing.assert_array_equal(result.average_precision, precisions)
    np.testing.assert_array_equal(result.cmc, np.mean(first_hits, axis=0))
    np.testing.assert_array_equal(result.unmatched, np.flatnonzero(np.isnan(precisions)))
    assert result.mAP == np.mean(precisions[~np.isnan(precisions)])
    assert result.mINP == np.mean(penalties)
    assert result.num_queries == len(ranks)


def descriptors(features, pids, camids):
    return Descriptors(
        np.asarray(features, np.float32), np.asarray(pids, np.int32), np.asarray(camids, np.int32)
    )


def random_set(rng, n, dim=3, scale=1, integers=True, first_pid=-1, num_pids=5):
    """Few identities and cameras, so that junk, distractors and unmatched queries all occur."""
    if integers:
        features = rng.integers(-scale, scale + 1, (n, dim))
    else:
        features = rng.standard_normal((n, dim)) * scale
    return descriptors(features, rng.integers(first_pid, num_pids, n), rng.integers(0, 3, n))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 12),
    num_gallery=st.integers(1, 30),
    scale=st.integers(0, 3),
    block_size=st.sampled_from(BLOCK_SIZES),
)
def test_equals_brute_force_with_ties_junk_distractors_and_unmatched(
    seed, num_queries, num_gallery, scale, block_size
):
    rng = np.random.default_rng(seed)
    query, gallery = (random_set(rng, n, scale=scale) for n in (num_queries, num_gallery))
    assert_equal_to_brute_force(query, gallery, block_size)

    indices, distances = nearest(query, gallery, 5, block_size=block_size)
    for i in range(num_queries):
        order, squared = brute_force_order(query, gallery, i)
        missing = max(0, 5 - len(order))
        np.testing.assert_array_equal(
            indices[i], np.pad(order[:5], (0, missing), constant_values=-1)
        )
        expected = np.pad(np.sqrt(squared[:5]), (0, missing), constant_values=np.inf)
        np.testing.assert_array_equal(distances[i], expected.astype(np.float32))


@pytest.mark.parametrize("block_size", [50, 1024, distances.BLOCK_SIZE])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_equals_brute_force_on_real_numbers(rng, block_size, offset):
    # The offset does not change the distances, but |g|^2 - 2 q.g in float32 loses all digits.
    query, gallery = (random_set(rng, n, dim=96, integers=False, num_pids=50) for n in (40, 2100))
    query, gallery = (
        Descriptors(s.features + np.float32(offset), s.pids, s.camids) for s in (query, gallery)
    )
    assert_equal_to_brute_force(query, gallery, block_size)


def assert_rescored_equals_brute_force(query, gallery, rescore, block_size):
    ranks = match_ranks(query, gallery, block_size=block_size, rescore=rescore)
    indices, values = nearest(query, gallery, 5, block_size=block_size, rescore=rescore)
    assert values.dtype == np.float32
    for i in range(len(query.pids)):
        order, expected = brute_force_order(query, gallery, i, rescore)
        hits = (gallery.pids[order] == query.pids[i]) & (query.pids[i] > 0)
        np.testing.assert_array_equal(ranks[i], np.flatnonzero(hits) + 1)
        found = min(5, len(order))
        np.testing.assert_array_equal(indices[i, :found], order[:found])
        np.testing.assert_array_equal(values[i, :found], expected[:found].astype(np.float32))
        assert np.all(indices[i, found:] == -1)
        assert np.all(values[i, found:] == np.inf)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 8),
    num_gallery=st.integers(1, 30),
    scale=st.integers(0, 3),
    spread=st.sampled_from([0, 2, 1e6]),
    block_size=st.sampled_from(BLOCK_SIZES),
)
def test_rescored_equals_brute_force_with_ties_and_no_weight(
    seed, num_queries, num_gallery, scale, spread, block_size
):
    rng = np.random.default_rng(seed)
    query, gallery = (random_set(rng, n, scale=scale) for n in (num_queries, num_gallery))
    weights = rng.choice([0.0, 1e-60, 1e-3, 0.25, 1.0, 3.7], num_queries)
    offsets = np.round(spread * rng.uniform(-1, 1, (num_queries, num_gallery)))
    asked = []

    def rescore(i):
        asked.append(i)
        return weights[i], offsets[i]

    assert_rescored_equals_brute_force(query, gallery, rescore, block_size)
    asked.clear()
    match_ranks(query, gallery, block_size=block_size, rescore=rescore)
    assert asked == list(range(num_queries))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 8),
    num_gallery=st.integers(1, 40),
    kept=st.floats(0, 1),
    own_camera=st.booleans(),
    block_size=st.sampled_from(BLOCK_SIZES),
)
def test_nearest_of_those_kept_and_of_other_cameras(
    seed, num_queries, num_gallery, kept, own_camera, block_size
):
    rng = np.random.default_rng(seed)
    query, gallery = (random_set(rng, n, scale=2) for n in (num_queries, num_gallery))
    keep = rng.random(num_gallery) < kept
    indices, values = nearest(
        query,
        distances.index_gallery(gallery),
        4,
        keep=keep,
        own_camera=own_camera,
        block_size=block_size,
    )
    for i in range(num_queries):
        order, squared = brute_force_order(query, gallery, i)
        use = keep[order] & (own_camera | (gallery.camids[order] != query.camids[i]))
        order, squared = order[use][:4], squared[use][:4]
        missing = 4 - len(order)
        np.testing.assert_array_equal(indices[i], np.pad(order, (0, missing), constant_values=-1))
        np.testing.assert_array_equal(
            values[i],
            np.pad(np.sqrt(squared), (0, missing), constant_values=np.inf).astype(np.float32),
        )


@pytest.mark.parametrize("keep", [np.ones(5, bool), np.ones((6, 1), bool), np.ones(6, int)])
def test_nearest_bad_keep(rng, keep):
    query, gallery = (random_set(rng, n) for n in (1, 6))
    with pytest.raises(ValueError, match=r"keep must be bool \(6,\), got"):
        nearest(query, gallery, 1, keep=keep)


def test_nothing_is_computed_of_images_that_are_not_kept(rng, monkeypatch):
    query, gallery = (random_set(rng, n, first_pid=1) for n in (3, 5000))
    scores, rows = distances._scores, []

    def counted(query, gallery, centre):
        rows.append((len(query), len(gallery)))
        return scores(query, gallery, centre)

    monkeypatch.setattr(distances, "_scores", counted)
    keep = np.zeros(5000, bool)
    keep[2000:2040] = True
    nearest(query, gallery, 3, keep=keep, block_size=1024)
    assert rows == [(4, 1024)]  # One tile, with as few queries as a power of two allows.
    rows.clear()
    one = Descriptors(query.features[:1], query.pids[:1], query.camids[:1])
    nearest(one, gallery, 3)
    assert rows == [(1, 4096), (1, 1024)]  # For one query, tiles are larger, except the last.


@pytest.mark.parametrize("noise", [1.0, 1e-6, 1e-12])
def test_rescored_near_ties_are_decided_in_float64(rng, noise, monkeypatch):
    # The offsets cancel the distances except for a noise that float32 does not resolve.
    query, gallery = (random_set(rng, n, dim=96, integers=False, num_pids=50) for n in (20, 1500))
    offsets = noise * rng.standard_normal((20, 1500))
    for i in range(20):
        difference = gallery.features.astype(np.float64) - query.features[i]
        offsets[i] -= 0.3 * np.square(difference).sum(axis=1)

    def rescore(i):
        return 0.3, offsets[i]

    assert_rescored_equals_brute_force(query, gallery, rescore, 1024)
    monkeypatch.setattr(distances, "_OFFSETS", 3 * 1500)  # three queries at a time
    assert_rescored_equals_brute_force(query, gallery, rescore, 100)


def test_near_ties_are_decided_in_float64(rng):
    # The gallery lies on a sphere around the query, with deviations that float32 does not resolve.
    directions = rng.standard_normal((200, 64))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gallery = descriptors(10 * directions, rng.integers(0, 20, 200), np.zeros(200))
    query = descriptors(np.zeros((4, 64)), [1, 2, 3, 4], np.ones(4))
    for block_size in (30, 512):
        assert_equal_to_brute_force(query, gallery, block_size)
        indices, _ = nearest(query, gallery, 20, block_size=block_size)
        for i in range(4):
            np.testing.assert_array_equal(indices[i], brute_force_order(query, gallery, i)[0][:20])


def test_hand_example():
    # Gallery on a line, with the query at 0. In order of distance: junk, the query's own camera
    # (both ignored), a distractor, a match, another identity tied with a later match, a match.
    query = descriptors([[0], [0]], [1, 9], [0, 0])
    gallery = descriptors([[4], [-5], [5], [1], [2], [3]], [1, 2, 1, -1, 1, 0], [1, 1, 2, 1, 0, 1])
    ranks = match_ranks(query, gallery)
    np.testing.assert_array_equal(ranks[0], [2, 4])
    assert len(ranks[1]) == 0

    result = evaluate_ranking(query, gallery, max_rank=5)
    np.testing.assert_array_equal(result.cmc, [0, 1, 1, 1, 1])
    assert result.mAP == (1 / 2 + 2 / 4) / 2
    assert result.mINP == 2 / 4
    np.testing.assert_array_equal(result.average_precision, [0.5, np.nan])
    np.testing.assert_array_equal(result.unmatched, [1])
    assert json.loads(json.dumps(result.summary())) == {
        "mAP": 0.5,
        "mINP": 0.5,
        "Rank-1": 0.0,
        "Rank-5": 1.0,
        "queries": 2,
        "unmatched": 1,
    }

    indices, distances = nearest(query, gallery, 6)
    assert indices.dtype == np.int32
    assert distances.dtype == np.float32
    np.testing.assert_array_equal(indices, [[5, 0, 1, 2, -1, -1], [4, 5, 0, 1, 2, -1]])
    inf = np.inf
    np.testing.assert_array_equal(distances, [[3, 4, 5, 5, inf, inf], [2, 3, 4, 5, 5, inf]])


def test_few_images_are_as_near_as_the_matches():
    # One match and two images tied with it are at the end of a gallery that is further away.
    features = np.full((200, 1), 9)
    features[[120, 150, 180]] = [[1], [-1], [1]]
    pids = np.full(200, 2)
    pids[150] = 1
    query = descriptors([[0]], [1], [0])
    gallery = descriptors(features, pids, np.ones(200))
    np.testing.assert_array_equal(match_ranks(query, gallery)[0], [2])
    np.testing.assert_array_equal(nearest(query, gallery, 4)[0], [[120, 150, 180, 0]])


def test_collapsed_network_ranks_in_gallery_order():
    features = np.full((6, 4), 0.1)
    query = descriptors(features[:1], [3], [0])
    gallery = descriptors(features, [1, 3, 2, -1, 3, 3], [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(match_ranks(query, gallery)[0], [2, 4])
    np.testing.assert_array_equal(nearest(query, gallery, 3)[0], [[0, 1, 2]])


@pytest.mark.parametrize("scale", [1e-22, 1e15])
def test_descriptors_of_extreme_length(rng, scale):
    query, gallery = (random_set(rng, n, integers=False, scale=scale) for n in (8, 40))
    assert_equal_to_brute_force(query, gallery, 64)


def test_identities_may_be_the_largest_integer():
    largest = np.iinfo(np.int64).max
    query = Descriptors(np.eye(2), np.array([largest, 5]), np.ones(2, int))
    features, pids = np.array([[0, 2], [1, 0], [3, 3]]), np.array([5, largest, largest])
    gallery = Descriptors(features, pids, np.array([2, 1, 2]))
    assert [found.tolist() for found in match_ranks(query, gallery)] == [[2], [1]]


def test_device_arrays_and_cmc_longer_than_the_gallery(rng):
    query, gallery = (random_set(rng, n, first_pid=1) for n in (5, 30))
    on_device = [
        Descriptors(jnp.asarray(s.features), jnp.asarray(s.pids), jnp.asarray(s.camids))
        for s in (query, gallery)
    ]
    result = evaluate_ranking(*on_device, max_rank=100)
    assert result.cmc.shape == (100,)
    assert result.cmc[-1] == 1
    assert result.mAP == evaluate_ranking(query, gallery).mAP


def test_memory_is_bounded_by_the_block_and_one_program_serves_all_blocks(rng, monkeypatch):
    query = random_set(rng, 600, dim=8, integers=False, first_pid=1)
    gallery = random_set(rng, 10_000, dim=8, integers=False, first_pid=0, num_pids=2000)
    scores, sizes = distances._scores, []

    def measured(*arrays):
        found = scores(*arrays)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(distances, "_scores", measured)
    scores.clear_cache()
    match_ranks(query, gallery, block_size=500)
    assert scores._cache_size() == 1
    assert max(sizes) <= 256 * 500  # XLA's arrays, which tracemalloc does not see
    tracemalloc.start()
    match_ranks(query, gallery, block_size=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    matrix = 4 * 600 * 10_000
    assert peak < matrix / 8
    assert scores._cache_size() == 1


def test_no_row_is_sorted(rng, monkeypatch):
    query, gallery = (random_set(rng, n, first_pid=1) for n in (20, 500))
    long_sorts = []
    for name in ("sort", "argsort", "lexsort", "partition", "argpartition", "unique"):
        original = getattr(np, name)

        def counted(array, *args, original=original, **kwargs):
            if np.size(array) >= 400:
                long_sorts.append(original.__name__)
            return original(array, *args, **kwargs)

        monkeypatch.setattr(np, name, counted)
    evaluate_ranking(Descriptors(query.features + 0.5, query.pids, query.camids), gallery)
    assert long_sorts == ["argsort"]  # of the gallery's pids, once
    shapes = [jax.ShapeDtypeStruct(s, np.float32) for s in ((4, 8), (6, 8), (8,))]
    assert "sort" not in distances._scores.lower(*shapes).as_text()


def ones(n, dim=2):
    return descriptors(np.ones((n, dim)), np.ones(n), np.arange(n))


@pytest.mark.parametrize(
    ("query", "gallery", "kwargs", "message"),
    [
        (ones(0), ones(3), {}, "query set is empty"),
        (ones(3), ones(0), {}, "gallery set is empty"),
        (ones(3, 2), ones(3, 4), {}, "query descriptors have 2 dimensions, gallery descriptors 4"),
        (ones(3), ones(3), {"block_size": 0}, "block_size must be at least 1"),
        (ones(3), ones(3), {"max_rank": 0}, "max_rank must be at least 1"),
        (ones(3), ones(3), {"max_rank": 2.5}, "max_rank must be a whole number, got 2.5"),
        (ones(3), descriptors([1, 2], [1, 1], [1, 1]), {}, "must be .images, dimensions."),
        (ones(3), descriptors([[1], [2]], [1], [1, 1]), {}, r"gallery pids must be integers"),
        (Descriptors(np.ones((1, 2)), np.ones(1), np.ones(1, int)), ones(3), {}, "query pids"),
        (ones(3), descriptors([[1, 1], [1, np.nan]], [1, 1], [1, 1]), {}, "NaN.*in image 1"),
        (descriptors([[np.inf, 1]], [1], [1]), ones(3), {}, "query descriptors hold NaN or inf"),
        (descriptors([[1e20, 1]], [1], [1]), ones(3), {}, "overflows float32"),
        (descriptors([[1, 1]], [7], [1]), ones(3), {}, "none of the 1 queries has a match"),
    ],
)
def test_bad_input_is_one_clear_error(query, gallery, kwargs, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(query, gallery, **kwargs)


@pytest.mark.parametrize(
    ("weight", "offset", "message"),
    [
        (-1.0, np.zeros(3), "weight -1.0 .* must be at least 0"),
        (np.nan, np.zeros(3), "the weight nan"),
        (1e39, np.zeros(3), "no sum may overflow float32"),
        (1.0, np.array([0, np.nan, 0]), "offsets from nan to nan"),
        (1.0, np.zeros(2), r"offsets of shape \(2,\), but the gallery has \(3,\)"),
        (1.0, np.zeros(3, np.float32), "must return a float64 array of offsets"),
    ],
)
def test_bad_rescore_is_one_clear_error(weight, offset, message):
    gallery = descriptors([[1, 1], [2, 2], [3, 4]], [1, 1, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=message):
        match_ranks(ones(2), gallery, rescore=lambda i: (weight, offset))


def test_nearest_needs_a_positive_k():
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest(ones(2), ones(2), 0)
