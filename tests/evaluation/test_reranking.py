import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.evaluation import reranking
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import match_ranks, nearest, neighbours
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.runtime import progress

pytestmark = pytest.mark.filterwarnings("error")


def reranked(query, gallery, k1, k2, weight):
    """The paper's program with dense float64 matrices and Python sets: distances (Q, G)."""
    features = np.concatenate([query.features, gallery.features]).astype(np.float64)
    count, first = len(features), len(query.features)
    distances = np.square(features[:, None] - features[None]).sum(axis=2)
    distances /= np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    order = np.argsort(distances, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    encoding = np.zeros((count, count))
    for i in range(count):
        neighbours = reciprocal(i, k1)
        expanded = set(neighbours)
        for j in neighbours:
            half = reciprocal(j, int(np.around(k1 / 2)))
            if len(half & neighbours) > 2 / 3 * len(half):
                expanded |= half
        for j in expanded:
            encoding[i, j] = np.exp(-distances[i, j])
        encoding[i] /= max(encoding[i].sum(), np.finfo(np.float64).tiny)
    if k2 > 1:
        encoding = np.array([encoding[order[i, :k2]].mean(axis=0) for i in range(count)])
    shared = np.minimum(encoding[:first, None], encoding[None, first:]).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    return (1 - weight) * jaccard + weight * distances[:first, first:]


def random_sets(seed, num_queries, num_gallery, integers, dim=2):
    """Few identities in clusters, some equal images, junk (-1) and distractors (0)."""
    rng = np.random.default_rng(seed)
    people = 3 * rng.standard_normal((6, dim))

    def one(count):
        pids = rng.integers(-1, 5, count)
        features = people[pids] + rng.standard_normal((count, dim))
        features = np.round(features) if integers else features
        return Descriptors(
            features.astype(np.float32), pids.astype(np.int32), rng.integers(0, 3, count)
        )

    return one(num_queries), one(num_gallery)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 8),
    num_gallery=st.integers(14, 40),
    k1=st.integers(1, 14),
    k2=st.integers(1, 7),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    integers=st.booleans(),
)
def test_equals_the_dense_program(seed, num_queries, num_gallery, k1, k2, weight, integers):
    query, gallery = random_sets(seed, num_queries, num_gallery, integers)
    expected = reranked(query, gallery, k1, k2, weight)
    rescore = k_reciprocal(query, gallery, k1=k1, k2=k2, weight=weight)
    squared = np.square(query.features[:, None].astype(np.float64) - gallery.features[None])
    for i, row in enumerate(squared.sum(axis=2)):
        scale, offset = rescore(i)
        np.testing.assert_allclose(scale * row + offset, expected[i], rtol=0, atol=1e-14)
    indices, values = nearest(query, gallery, num_gallery, rescore=rescore)
    ranks = match_ranks(query, gallery, rescore=rescore)
    for i in range(num_queries):
        own = (gallery.pids == query.pids[i]) & (query.pids[i] > 0)
        valid = (gallery.pids != -1) & ~(own & (gallery.camids == query.camids[i]))
        ranked = indices[i, : valid.sum()]
        np.testing.assert_array_equal(np.sort(ranked), np.flatnonzero(valid))
        # In the order of the dense program, except for differences due only to rounding.
        assert np.all(np.diff(expected[i, ranked]) > -1e-14)
        np.testing.assert_allclose(values[i, : valid.sum()], expected[i, ranked], atol=1e-7)
        np.testing.assert_array_equal(ranks[i], np.flatnonzero(own[ranked]) + 1)


def test_hand_example():
    # On a line: 0 1 3 | 10. With k1 = 1 the query at 0 and the image at 1 are each other's only
    # neighbours; 3's nearest is 1, whose nearest is not 3.
    query = Descriptors(np.float32([[0]]), np.int32([1]), np.int32([0]))
    gallery = Descriptors(np.float32([[1], [3], [10]]), np.int32([1, 2, 3]), np.int32([1, 1, 1]))
    scale, offset = k_reciprocal(query, gallery, k1=1, k2=1, weight=0.5)(0)
    assert scale == 0.5 / 100
    a, b = 1 / (1 + np.exp(-1 / 100)), np.exp(-1 / 81) / (1 + np.exp(-1 / 81))  # for image 0
    shared = min(a, b) + min(1 - a, 1 - b)
    np.testing.assert_allclose(offset, [0.5 * (1 - shared / (2 - shared)), 0.5, 0.5], rtol=1e-14)


@pytest.mark.parametrize("integers", [True, False])
def test_block_sizes_change_no_bit(integers, monkeypatch):
    query, gallery = random_sets(3, 40, 300, integers, dim=5)
    whole = k_reciprocal(query, gallery)
    ranks = match_ranks(query, gallery, rescore=whole)
    listed = nearest(query, gallery, 30, rescore=whole)
    for rows, block_size in ((7, 16), (64, 100)):
        monkeypatch.setattr(reranking, "_ROWS", rows)
        parts = k_reciprocal(query, gallery, block_size=block_size)
        for i in range(40):
            assert whole(i)[0] == parts(i)[0]
            np.testing.assert_array_equal(whole(i)[1], parts(i)[1])
        for got, expected in zip(
            match_ranks(query, gallery, block_size=block_size, rescore=parts), ranks, strict=True
        ):
            np.testing.assert_array_equal(got, expected)
        for got, expected in zip(
            nearest(query, gallery, 30, block_size=block_size, rescore=parts), listed, strict=True
        ):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("integers", [True, False])
def test_weight_1_is_the_plain_order(integers):
    query, gallery = random_sets(4, 30, 200, integers, dim=3)
    rescore = k_reciprocal(query, gallery, weight=1.0)
    plain, _ = nearest(query, gallery, 200)
    np.testing.assert_array_equal(nearest(query, gallery, 200, rescore=rescore)[0], plain)
    for got, expected in zip(
        match_ranks(query, gallery, rescore=rescore), match_ranks(query, gallery), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_equal_images_everywhere():
    # A collapsed network: all lists hold the first images, and no distance is divided by zero.
    features = np.full((40, 4), 0.1, np.float32)
    pids = np.full(40, 2, np.int32)
    query = Descriptors(features[:3], pids[:3], np.zeros(3, np.int32))
    gallery = Descriptors(features[3:], pids[3:], np.ones(37, np.int32))
    rescore = k_reciprocal(query, gallery, k1=5, k2=2)
    expected = reranked(query, gallery, 5, 2, 0.3)
    for i in range(3):
        np.testing.assert_allclose(rescore(i)[1], expected[i], atol=1e-15)


def test_neighbours_and_the_furthest_are_exact(rng):
    # On a sphere around the first image, with deviations that float32 does not resolve.
    features = rng.standard_normal((300, 48))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[0] = 0
    features = (10 * features).astype(np.float32)
    features[200:230] = features[100:130]
    difference = features[:, None].astype(np.float64) - features[None]
    squared = np.square(difference).sum(axis=2)
    for block_size in (50, 1024):
        indices, furthest = neighbours(features, 25, block_size=block_size)
        np.testing.assert_array_equal(indices, np.argsort(squared, axis=1, kind="stable")[:, :25])
        np.testing.assert_array_equal(furthest, squared.max(axis=1))


def test_long_searches_say_how_far_they_are(monkeypatch):
    monkeypatch.setattr(progress, "PERIOD", -1.0)
    query, gallery = random_sets(0, 60, 300, integers=False, dim=4)
    lines = []
    rescore = k_reciprocal(query, gallery, block_size=256, progress=lines.append)
    match_ranks(query, gallery, rescore=rescore, progress=lines.append)
    assert [line.split("  ETA 0:00:0")[0] for line in lines] == [
        "found the neighbours of 256 of 360 images",
        "found the neighbours of 360 of 360 images",
        "ranked the gallery for 60 of 60 images",
    ]


@pytest.mark.slow
def test_no_square_array_is_made():
    query, gallery = random_sets(5, 200, 1800, integers=False, dim=16)
    match_ranks(query, gallery, block_size=512)  # compiles
    tracemalloc.start()
    rescore = k_reciprocal(query, gallery, block_size=512)
    match_ranks(query, gallery, block_size=512, rescore=rescore)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 2000**2  # bytes: less than one float32 matrix, the dense program takes five


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"k1": 0}, "k1 must be at least 1, got 0"),
        ({"k1": 5.0}, "k1 must be a whole number, got 5.0"),
        ({"k1": 19, "k2": 0}, "k2 must be at least 1, got 0"),
        ({"k1": 20}, "k1 = 20 needs at least 21 images, and query and gallery have 20"),
        ({"k1": 19, "k2": 21}, "k2 = 21 needs at least 21 images"),
        ({"k1": 19, "weight": 1.1}, r"weight must be in \[0, 1\], got 1.1"),
        ({"k1": 19, "weight": float("nan")}, "weight must be in"),
        ({"k1": 19, "block_size": 0}, "block_size must be at least 1"),
    ],
)
def test_bad_settings_are_one_clear_error(kwargs, message):
    query, gallery = random_sets(6, 4, 16, integers=True)
    with pytest.raises(ValueError, match=message):
        k_reciprocal(query, gallery, **kwargs)


def test_sets_of_two_networks_are_one_clear_error():
    query, gallery = random_sets(6, 4, 16, integers=True)[0], random_sets(6, 4, 16, True, dim=3)[1]
    with pytest.raises(ValueError, match="2 dimensions, gallery descriptors 3"):
        k_reciprocal(query, gallery)
