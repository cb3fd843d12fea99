import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.data.splits import Split
from reid_jax.evaluation import multi_query
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import match_ranks
from tests.evaluation.test_ranking import brute_force, random_set

# Two queries of identity 7 under one camera, one of it under another, one of identity 9.
QUERY_PIDS, QUERY_CAMIDS = [7, 7, 9, 7], [1, 2, 1, 1]


@pytest.fixture
def query():
    # Values that would change the result if they were read.
    pids, camids = (np.array(numbers, np.int32) for numbers in (QUERY_PIDS, QUERY_CAMIDS))
    return Descriptors(np.full((4, 6), np.nan, np.float32), pids, camids)


@pytest.fixture
def boxes(rng):
    """Boxes in any order, of very different lengths, some of which belong to no query."""
    pids = np.array([9, 7, 7, 7, 8, 7, 9, 9, 7], np.int32)
    camids = np.array([1, 1, 2, 1, 1, 1, 2, 1, 1], np.int32)
    scale = 10.0 ** rng.integers(-6, 6, (9, 1))
    return Descriptors((rng.normal(size=(9, 6)) * scale).astype(np.float32), pids, camids)


def by_hand(boxes, how, normalize):
    """The definition, in float64."""
    rows = []
    for pid, camid in zip(QUERY_PIDS, QUERY_CAMIDS, strict=True):
        group = [
            [float(value) for value in feature]
            for feature, p, c in zip(boxes.features, boxes.pids, boxes.camids, strict=True)
            if p == pid and c == camid
        ]
        columns = zip(*group, strict=True)
        pool = max if how == "max" else lambda column: sum(column) / len(column)
        row = np.array([pool(column) for column in columns])
        rows.append(row / np.sqrt((row**2).sum()) if normalize else row)
    return np.array(rows)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from(multi_query.QUERY_POOLINGS),
    num_queries=st.integers(1, 6),
    num_boxes=st.integers(0, 20),
)
def test_ranks_equal_brute_force(seed, how, num_queries, num_boxes):
    """Compare with pooling by hand and sorting, with ties, junk and distractors in the gallery."""
    rng = np.random.default_rng(seed)
    query = random_set(rng, num_queries, first_pid=1)
    boxes = random_set(rng, num_boxes, scale=4)
    boxes = Descriptors(  # Every query has at least one.
        np.concatenate([boxes.features, query.features]),
        np.concatenate([boxes.pids, query.pids]),
        np.concatenate([boxes.camids, query.camids]),
    )
    gallery = random_set(rng, 40, scale=4)
    rows = []
    for pid, camid in zip(query.pids, query.camids, strict=True):
        own = boxes.features[(boxes.pids == pid) & (boxes.camids == camid)].astype(np.float64)
        rows.append(own.max(axis=0) if how == "max" else own.sum(axis=0) / len(own))
    expected = Descriptors(np.float32(rows), query.pids, query.camids)
    ranks, *_ = brute_force(expected, gallery, 10)
    got = match_ranks(multi_query.pool(query, boxes, how), gallery, block_size=16)
    for one, other in zip(got, ranks, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("how", multi_query.QUERY_POOLINGS)
def test_pooled_as_defined(query, boxes, how, normalize):
    pooled = multi_query.pool(query, boxes, how, normalize)
    assert pooled.features.dtype == np.float32
    np.testing.assert_allclose(pooled.features, by_hand(boxes, how, normalize), rtol=1e-6)
    np.testing.assert_array_equal(pooled.pids, QUERY_PIDS)
    np.testing.assert_array_equal(pooled.camids, QUERY_CAMIDS)
    # The maximum is one of the values, so it is not rounded.
    if how == "max" and not normalize:
        np.testing.assert_array_equal(pooled.features, by_hand(boxes, how, normalize))


def test_one_box_is_its_own_pool(query, boxes):
    for how in multi_query.QUERY_POOLINGS:
        pooled = multi_query.pool(query, boxes, how)
        np.testing.assert_array_equal(pooled.features[1], boxes.features[2])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("how", multi_query.QUERY_POOLINGS)
def test_the_order_of_boxes_changes_no_bit(rng, how, normalize):
    # Terms that cancel: another order of summation, even in float64, leaves other digits.
    features = (rng.normal(size=(40, 30)) * 10.0 ** rng.integers(-12, 12, (40, 30))).astype("f4")
    features[20:] = -features[:20] * np.float32(1 + 2e-7)
    who = np.zeros(40, np.int32)
    query = Descriptors(features[:1], who[:1], who[:1])
    first = multi_query.pool(query, Descriptors(features, who, who), how, normalize).features
    for _ in range(10):
        order = rng.permutation(40)
        again = multi_query.pool(query, Descriptors(features[order], who, who), how, normalize)
        np.testing.assert_array_equal(again.features, first)


def test_the_average_is_summed_in_double_precision():
    column = np.float32([2.0**25, 1.0, -(2.0**25)])[:, None]
    who = np.ones(3, np.int32)
    pooled = multi_query.pool(
        Descriptors(column[:1], who[:1], who[:1]), Descriptors(column, who, who), "average"
    )
    assert pooled.features == np.float32(1 / 3)


def test_a_pool_of_length_zero_stays_zero():
    features = np.float32([[1.0, 0.0], [-1.0, 0.0]])
    who = np.ones(2, np.int32)
    query = Descriptors(features[:1], who[:1], who[:1])
    pooled = multi_query.pool(query, Descriptors(features, who, who), "average", normalize=True)
    np.testing.assert_array_equal(pooled.features, [[0.0, 0.0]])


def test_unknown_way_to_pool(query, boxes):
    with pytest.raises(
        ValueError, match=r"--multi-query is .mean.; it must be one of average, max"
    ):
        multi_query.pool(query, boxes, "mean")


def test_a_query_without_a_box_is_named(query, boxes):
    without = boxes.camids != 2
    left = Descriptors(boxes.features[without], boxes.pids[without], boxes.camids[without])
    with pytest.raises(ValueError, match="identity 7 has no box under camera 2"):
        multi_query.pool(query, left, "max")


def test_a_split_will_do_for_the_queries(query, boxes):
    split = Split(("a", "b", "c", "d"), query.pids, query.camids)
    np.testing.assert_array_equal(
        multi_query.pool(split, boxes, "max").features,
        multi_query.pool(query, boxes, "max").features,
    )
