import collections
import time

import numpy as np
import pytest

from reid_jax.data.sampler import IdentitySampler


def labels_of(counts):
    """Labels with counts[i] images of identity i, shuffled."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return np.random.default_rng(7).permutation(labels)


def test_batches_are_p_distinct_identities_of_k_images():
    labels = labels_of([6] * 12)
    sampler = IdentitySampler(labels, 4, 3, seed=0)
    for step in range(30):
        indices = sampler(step)
        assert indices.shape == (12,)
        assert indices.dtype == np.int32
        groups = labels[indices].reshape(4, 3)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 4
        assert len(set(indices)) == 12  # without replacement


def test_every_identity_once_an_epoch():
    labels = labels_of([4] * 12)
    sampler = IdentitySampler(labels, 4, 2, seed=3)
    assert sampler.steps_per_epoch == 3
    orders = []
    for epoch in range(5):
        batches = [labels[sampler(3 * epoch + i)][::2] for i in range(3)]
        orders.append(tuple(np.concatenate(batches)))
        assert sorted(orders[-1]) == list(range(12))
    assert len(set(orders)) == 5  # each epoch has an order of its own


@pytest.mark.parametrize("identities", [4, 5, 6, 7, 9, 11])
def test_uneven_epochs_are_filled_with_distinct_identities(identities):
    labels = labels_of([3] * identities)
    sampler = IdentitySampler(labels, 4, 1, seed=0)
    steps = -(-identities // 4)
    assert sampler.steps_per_epoch == steps
    for epoch in range(8):
        batches = [labels[sampler(steps * epoch + i)] for i in range(steps)]
        assert all(len(set(batch)) == 4 for batch in batches)
        shown = collections.Counter(np.concatenate(batches))
        assert set(shown) == set(range(identities))
        assert sorted(shown.values()) == [1] * (2 * identities - 4 * steps) + [2] * (
            4 * steps - identities
        )


def test_few_images_are_repeated():
    labels = labels_of([1, 2, 3, 4, 5])
    sampler = IdentitySampler(labels, 5, 4, seed=0)
    shown = collections.defaultdict(set)
    for step in range(50):
        for index, label in zip(
            sampler(step), np.repeat(labels[sampler(step)][::4], 4), strict=True
        ):
            assert labels[index] == label
            shown[label].add(index)
        if step == 0:
            for label in (3, 4):
                mine = sampler(step)[labels[sampler(step)] == label]
                assert len(set(mine)) == 4
    assert {label: len(images) for label, images in shown.items()} == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}


def test_a_pure_function_of_seed_and_step():
    labels = labels_of([5] * 10)
    forward = IdentitySampler(labels, 4, 2, seed=11)
    batches = [forward(step) for step in range(40)]
    backward = IdentitySampler(labels, 4, 2, seed=11)
    for step in reversed(range(40)):
        np.testing.assert_array_equal(backward(step), batches[step])
    other = IdentitySampler(labels, 4, 2, seed=12)
    assert sum(np.array_equal(other(step), batches[step]) for step in range(40)) == 0
    assert len({batch.tobytes() for batch in batches}) == 40


def test_global_generator_is_not_touched():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    IdentitySampler(labels_of([5] * 4), 2, 2, seed=0)(3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_choices_are_uniform():
    labels = labels_of([6] * 6)
    sampler = IdentitySampler(labels, 3, 4, seed=0)
    epochs = 1500
    images = np.zeros(len(labels))
    first = np.zeros(6)
    for step in range(2 * epochs):
        images[sampler(step)] += 1
        if step % 2 == 0:
            first[labels[sampler(step)[0]]] += 1
    # Binomial counts: five standard deviations.
    assert abs(images - epochs * 4 / 6).max() < 5 * np.sqrt(epochs * 4 / 6 * 2 / 6)
    assert abs(first - epochs / 6).max() < 5 * np.sqrt(epochs / 6 * 5 / 6)


def test_far_steps_cost_what_near_ones_do():
    labels = labels_of([4] * 700)
    near, far = (IdentitySampler(labels, 16, 4, seed=0) for _ in range(2))

    def seconds(sampler, step):
        started = time.perf_counter()
        sampler(step)
        return time.perf_counter() - started

    # Iterating up to that epoch would take 10^9 permutations.
    assert seconds(far, 10**9) < 100 * max(seconds(near, 0), 1e-3)


def test_labels_may_be_any_integers():
    labels = np.array([90, -3, 90, 41, -3, 41, 90])
    sampler = IdentitySampler(labels, 3, 2, seed=0)
    assert sorted(labels[sampler(0)]) == [-3, -3, 41, 41, 90, 90]


def test_too_few_identities():
    with pytest.raises(ValueError, match=r"data\.identities_per_batch = 6 .*5 identities"):
        IdentitySampler(labels_of([4] * 5), 6, 2, seed=0)
    IdentitySampler(labels_of([4] * 5), 5, 2, seed=0)


def test_batches_need_two_identities():
    with pytest.raises(ValueError, match=r"fewer than two.*data\.identities_per_batch = 1"):
        IdentitySampler(labels_of([4] * 5), 1, 4, seed=0)


def test_batches_need_an_image_of_each():
    with pytest.raises(ValueError, match=r"data\.images_per_identity = 0"):
        IdentitySampler(labels_of([4] * 5), 2, 0, seed=0)


# Images of identities in three datasets, with 9, 4 and 5 identities.
SETS = [[2, 5, 4, 4, 1, 3, 4, 4, 6], [4, 2, 7, 3], [5] * 5]


def several_sets():
    labels = labels_of([count for counts in SETS for count in counts])
    ends = np.cumsum([len(counts) for counts in SETS])
    return labels, np.searchsorted(ends, labels, side="right")


def expected_balanced(labels, sources, shares, k, seed, step):
    """The batch of a step, written down once more."""
    batch = []
    for i, share in enumerate(shares):
        pool = np.unique(labels[sources == i])
        epoch, place = divmod(step, -(-len(pool) // share))
        order = np.random.default_rng((seed, 0, epoch, i + 1)).permutation(pool)
        rng = np.random.default_rng((seed, 1, step, i + 1))
        for identity in np.concatenate([order, order])[place * share :][:share]:
            images = np.flatnonzero(labels == identity).astype(np.int32)
            batch.append(rng.choice(images, k, replace=len(images) < k))
    return np.concatenate(batch)


@pytest.mark.parametrize(
    ("p", "shares"), [(3, [1, 1, 1]), (6, [2, 2, 2]), (7, [3, 2, 2]), (11, [4, 4, 3])]
)
def test_a_balanced_batch_has_as_many_identities_of_each_dataset(p, shares):
    labels, sources = several_sets()
    sampler = IdentitySampler(labels, p, 3, seed=5, sources=sources)
    needed = [-(-len(counts) // share) for counts, share in zip(SETS, shares, strict=True)]
    assert sampler.steps_per_epoch == max(needed)
    shown = set()
    for step in [*range(20), 10**6]:
        batch = sampler(step)
        expected = expected_balanced(labels, sources, shares, 3, 5, step)
        np.testing.assert_array_equal(batch, expected)
        identities = labels[batch].reshape(p, 3)
        assert (identities == identities[:, :1]).all()
        assert len(set(identities[:, 0])) == p
        assert np.bincount(sources[batch][::3], minlength=3).tolist() == shares
        if step < sampler.steps_per_epoch:
            shown |= set(identities[:, 0])
    assert shown == set(labels)  # An epoch shows every identity.


def test_a_batch_without_balance_is_of_all_identities():
    labels, sources = several_sets()
    sampler = IdentitySampler(labels, 6, 2, seed=5)
    assert sampler.steps_per_epoch == 3
    compositions = set()
    for step in range(30):
        epoch, place = divmod(step, 3)
        order = np.random.default_rng((5, 0, epoch)).permutation(18)
        rng = np.random.default_rng((5, 1, step))
        expected = []
        for identity in order[6 * place : 6 * place + 6]:
            images = np.flatnonzero(labels == identity).astype(np.int32)
            expected.append(rng.choice(images, 2, replace=len(images) < 2))
        np.testing.assert_array_equal(sampler(step), np.concatenate(expected))
        compositions.add(tuple(np.bincount(sources[sampler(step)][::2], minlength=3)))
    assert len(compositions) > 3


def test_a_balanced_batch_needs_identities_of_each_dataset():
    labels, sources = several_sets()
    with pytest.raises(ValueError, match=r"per_batch = 2 is fewer than the 3 datasets: raise it"):
        IdentitySampler(labels, 2, 2, seed=0, sources=sources)
    with pytest.raises(ValueError, match=r"15 takes 5 identities of dataset 1 of data\.also, whi"):
        IdentitySampler(labels, 15, 2, seed=0, sources=sources)
    with pytest.raises(ValueError, match=r"9 takes 5 identities of the dataset of data\.root"):
        IdentitySampler(labels[sources > 0], 9, 2, seed=0, sources=sources[sources > 0] - 1)
