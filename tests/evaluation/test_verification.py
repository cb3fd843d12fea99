"""Verification against whole ROC curves of all pairs, in float64 and pair by pair."""

import concurrent.futures
import json
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_jax.evaluation import verification
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import nearest
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.evaluation.verification import RATES, NoPairs, evaluate_verification
from reid_jax.runtime import hosts

pytestmark = pytest.mark.filterwarnings("error")


def descriptors(features, pids, camids):
    return Descriptors(np.asarray(features, np.float32), np.asarray(pids), np.asarray(camids))


def random_set(rng, count, dim=3, first_pid=-1, num_pids=5, integers=True):
    shape = (count, dim)
    features = rng.integers(0, 3, shape) if integers else rng.normal(size=shape)
    pids = rng.integers(first_pid, num_pids, count)
    return descriptors(features, pids, rng.integers(0, 3, count))


def all_pairs(query, gallery, rescore=None):
    """Labels and float32 distances of all pairs that count, one by one."""
    labels, distances = [], []
    for i, (pid, camid) in enumerate(zip(query.pids, query.camids, strict=True)):
        for j, (other, camera) in enumerate(zip(gallery.pids, gallery.camids, strict=True)):
            same = pid == other > 0
            if pid == -1 or other == -1 or (same and camid == camera):
                continue
            difference = query.features[i].astype(np.float64) - gallery.features[j]
            value = np.sum(difference**2)
            if rescore is None:
                value = np.sqrt(value)
            else:
                weight, offsets = rescore(i)
                value = weight * value + offsets[j]
            labels.append(same)
            distances.append(np.float32(value))
    return np.array(labels), np.array(distances)


def whole_curve(labels, distances):
    """False and true positive rates at every distinct distance, from (0, 0) on."""

    points = [(0.0, 0.0)]
    for t in np.unique(distances):
        accepted = distances <= t
        points.append((np.mean(accepted[~labels]), np.mean(accepted[labels])))
    return np.array(points).T


def assert_equal_to_all_pairs(query, gallery, rescore=None, **options):
    labels, distances = all_pairs(query, gallery, rescore)
    if labels.all() or not labels.any():
        with pytest.raises(NoPairs, match="no negative pair" if labels.any() else "no positive"):
            evaluate_verification(query, gallery, rescore=rescore, **options)
        return None
    result = evaluate_verification(query, gallery, rescore=rescore, **options)
    fpr, tpr = whole_curve(labels, distances)
    assert result.num_positive == np.count_nonzero(labels)
    assert result.num_negative == np.count_nonzero(~labels)
    np.testing.assert_allclose(result.AUC, np.trapezoid(tpr, fpr), atol=1e-12)
    crossing = np.argmax(fpr + tpr - 1 >= -1e-12)
    around = slice(crossing - 1, crossing + 1)
    eer = np.interp(0, (fpr + tpr - 1)[around], fpr[around])
    np.testing.assert_allclose(result.EER, eer, atol=1e-12)
    # Each true positive rate is the highest that any threshold reaches, and its threshold does.
    for rate in (*RATES, 0.5, 1.0):
        best, threshold = result.at(rate)
        assert best == tpr[fpr <= rate].max()
        if threshold is None:
            assert best == 0
        else:
            assert np.mean(distances[~labels] <= threshold) <= rate
            assert np.mean(distances[labels] <= threshold) == best
            assert threshold in distances[labels]
    np.testing.assert_array_equal(result.distances, np.unique(distances[labels]))
    for values, histogram in (
        (distances[labels], result.positive_histogram),
        (distances[~labels], result.negative_histogram),
    ):
        assert result.edges[0] <= values.min()
        assert values.max() <= result.edges[-1]
        inside = np.searchsorted(result.edges[1:-1], values, "right")
        np.testing.assert_array_equal(histogram, np.bincount(inside, minlength=1000))
    return result


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from((1, 2, 7, 64)), st.booleans())
def test_equal_to_all_pairs_whatever_the_block(seed, block_size, integers):
    """Integers tie often; pids from -1 on hold junk, distractors and unmatched queries."""
    rng = np.random.default_rng(seed)
    query, gallery = (random_set(rng, rng.integers(1, 30), integers=integers) for _ in "qg")
    assert_equal_to_all_pairs(query, gallery, block_size=block_size)


@pytest.mark.extras
def test_equal_to_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for integers in (True, False):
        query, gallery = (random_set(rng, n, integers=integers) for n in (30, 90))
        labels, distances = all_pairs(query, gallery)
        result = evaluate_verification(query, gallery)
        np.testing.assert_allclose(result.AUC, metrics.roc_auc_score(labels, -distances))
        fpr, tpr, thresholds = metrics.roc_curve(labels, -distances, drop_intermediate=False)
        at = [np.flatnonzero(-thresholds == d)[0] for d in result.distances]
        np.testing.assert_allclose(result.fpr, fpr[at], atol=1e-15)
        np.testing.assert_allclose(result.tpr, tpr[at], atol=1e-15)
        for rate in RATES:
            assert result.at(rate)[0] == pytest.approx(tpr[fpr <= rate].max())


def test_values_by_hand():
    """Positive pairs at 1, 2, 2 and 4; negative pairs at 2, 3, 4, 5 and 6."""
    query = descriptors([[0], [100]], [1, 2], [0, 0])
    gallery = descriptors(
        [[1], [2], [-2], [4], [2], [3], [4], [5], [6], [0]],
        [1, 1, 1, 1, 0, 0, 3, 4, 5, 1],
        [1, 2, 1, 1, 1, 1, 1, 1, 1, 0],
    )
    only = Descriptors(query.features[:1], query.pids[:1], query.camids[:1])
    result = evaluate_verification(only, gallery)
    assert result.distances.tolist() == [1, 2, 4]
    assert result.tpr.tolist() == [0.25, 0.75, 1]
    assert result.fpr.tolist() == [0, 0.2, 0.6]
    # Negative pairs that are farther, half of those as far: (5 + 2 * 4.5 + 2.5) of 20.
    assert result.AUC == 0.825
    # From (0.2, 0.75) the curve goes to (0.4, 0.75): it leaves as many false negatives at 0.25.
    assert result.EER == 0.25
    assert [result.at(rate) for rate in (0, 0.1, 0.2, 0.59, 1)] == [
        (0.25, 1), (0.25, 1), (0.75, 2), (0.75, 2), (1, 4),
    ]  # fmt: skip
    summary = result.summary()
    assert summary == json.loads(json.dumps(summary))
    assert summary["tpr_at_fpr"] == {"0.1": 0.25, "0.01": 0.25, "0.001": 0.25, "0.0001": 0.25}
    assert summary["thresholds"] == {"EER": 2, "0.1": 1, "0.01": 1, "0.001": 1, "0.0001": 1}
    assert (summary["positive_pairs"], summary["negative_pairs"]) == (4, 5)
    # The second query has no match; its pairs are negative all the same.
    both = evaluate_verification(query, gallery)
    assert both.num_negative == 5 + 10
    for rate in (float("nan"), "x", "0.1", 2, -0.1, None):
        with pytest.raises(ValueError, match=f"fpr is {rate!r}; it must be a number from 0 to 1"):
            result.at(rate)


def test_no_threshold_if_the_nearest_pair_is_negative():
    query = descriptors([[0]], [1], [0])
    result = evaluate_verification(query, descriptors([[1], [2]], [2, 1], [0, 1]))
    assert (result.AUC, result.EER) == (0, 1)
    assert result.at(1e-1) == (0, None)
    assert result.summary()["thresholds"]["0.1"] is None
    assert "0.0 at 0.1 (none)" in verification.table(result)


@pytest.mark.parametrize("integers", [True, False])
def test_reranked_distances(rng, integers):
    query, gallery = (random_set(rng, n, integers=integers, first_pid=0) for n in (12, 40))
    rescore = k_reciprocal(query, gallery, k1=6, k2=2)
    result = assert_equal_to_all_pairs(query, gallery, rescore, block_size=16)
    assert result.AUC != evaluate_verification(query, gallery).AUC
    # A weight of 0 orders by offsets only.
    offsets = rng.normal(size=(12, 40))
    assert_equal_to_all_pairs(query, gallery, lambda i: (0.0, offsets[i]))


@pytest.mark.parametrize(
    ("scale", "shift", "apart"),
    [(1e-22, 0, 0), (1e15, 0, 0), (1e-3, 1e3, 0), (1, 0, 0), (1e-2, 0, 1e6)],
)
def test_distances_are_those_of_nearest_to_the_last_bit(rng, scale, shift, apart):
    """Also of descriptors that differ little from each other, and of equal ones."""
    far = apart * (np.arange(50) == 0)
    query, gallery = (random_set(rng, n, 50, integers=False, first_pid=1) for n in (40, 60))
    features = np.concatenate([gallery.features[:50], query.features[:10]])
    sets = [
        descriptors(scale * f + shift + np.where(f[:, 1:2] > 0, far, -far), s.pids, s.camids)
        for f, s in ((query.features, query), (features, gallery))
    ]
    search = verification.prepare(*sets, 16)
    (orders,) = verification.take_orders(search._replace(tile=(64, 16)))
    found = verification._distances(search, orders, slice(0, 60))
    nobody = [Descriptors(s.features, 0 * s.pids, 0 * s.camids) for s in sets]
    indices, expected = nearest(*nobody, 60)
    np.testing.assert_array_equal(np.take_along_axis(found, indices.astype(int), 1), expected)


def test_few_pairs_are_decided_by_differences(rng, monkeypatch):
    query, gallery = (random_set(rng, n, 64, integers=False, first_pid=1) for n in (50, 2000))
    search = verification.prepare(query, gallery, 512)
    asked = []
    values = verification.Search.values

    def counted(self, order, indices):
        asked.append(len(indices))
        return values(self, order, indices)

    monkeypatch.setattr(verification.Search, "values", counted)
    for orders in verification.take_orders(search):
        verification._distances(search, orders, slice(0, 2000))
    assert sum(asked) < 20  # of 100,000


def test_a_collapsed_network(rng):
    query, gallery = (descriptors(np.ones((n, 3)), np.arange(n), np.arange(n)) for n in (4, 9))
    other = Descriptors(gallery.features, gallery.pids, gallery.camids + 1)
    result = assert_equal_to_all_pairs(query, other)
    assert (result.AUC, result.EER) == (0.5, 0.5)


def test_memory_is_bounded_by_the_block(rng):
    query = random_set(rng, 300, 8, integers=False, first_pid=1, num_pids=2000)
    gallery = random_set(rng, 20_000, 8, integers=False, first_pid=0, num_pids=2000)
    evaluate_verification(query, gallery, block_size=500)
    tracemalloc.start()
    evaluate_verification(query, gallery, block_size=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 300 * 20_000 / 3


class Threads(hosts.Team):
    """The team of one of two hosts, which are threads here."""

    def __init__(self, index, barrier, given):
        self.index, self.barrier, self.given = index, barrier, given

    def part(self, size):
        return slice(0, size // 3) if self.index == 0 else slice(size // 3, size)

    def rows(self, own):
        self.given[self.index] = own
        self.barrier.wait()
        every = np.concatenate(self.given)
        self.barrier.wait()
        return every


@pytest.mark.parametrize("rerank", [False, True])
def test_two_hosts_share_the_queries(rng, rerank):
    query, gallery = (random_set(rng, n, integers=False, first_pid=0) for n in (20, 60))
    rescore = k_reciprocal(query, gallery, k1=6, k2=2) if rerank else None
    expected = evaluate_verification(query, gallery, rescore=rescore)
    barrier, given = threading.Barrier(2, timeout=60), [None, None]

    def host(index):
        team = Threads(index, barrier, given)
        return evaluate_verification(query, gallery, rescore=rescore, team=team)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(host, (0, 1)))
    for result in results:
        assert result.summary() == expected.summary()
        np.testing.assert_array_equal(result.negative_histogram, expected.negative_histogram)
        np.testing.assert_array_equal(result.positive_histogram, expected.positive_histogram)


def test_table_is_in_per_cent():
    query = descriptors([[0]], [1], [0])
    result = evaluate_verification(query, descriptors([[1], [1.5], [3]], [1, 2, 1], [1, 1, 1]))
    assert verification.table(result).splitlines() == [
        "verification, 2 positive and 1 negative pairs: AUC 50.0, EER 50.0",
        "TPR at FPR (distance): 50.0 at 0.1 (1.0000), 50.0 at 0.01 (1.0000), "
        "50.0 at 0.001 (1.0000), 50.0 at 0.0001 (1.0000)",
    ]


def test_bad_input_is_one_clear_error():
    one = descriptors([[0, 1]], [1], [0])
    with pytest.raises(ValueError, match="query descriptors have 2 dimensions"):
        evaluate_verification(one, descriptors([[0]], [1], [1]))
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        evaluate_verification(one, one, block_size=0)
