"""A gallery compared with brute force in float64, and its file with every kind of damage."""

import gc
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reid_jax
from reid_jax import gallery as gallery_module
from reid_jax.evaluation import ranking
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.gallery import Gallery


def random_gallery(rng, count, dim=4, integers=True):
    """Few values, identities and cameras, so that ties and every filter occur; and its columns."""
    draw = rng.integers(-1, 2, (count, dim)) if integers else rng.standard_normal((count, dim))
    features = draw.astype(np.float32)
    pids, camids = rng.integers(-1, 5, count), rng.integers(0, 4, count)
    names = [f"image {i}" for i in range(count)]
    gallery = Gallery()
    # In unequal parts.
    for part in np.split(np.arange(count), np.sort(rng.integers(0, count + 1, 3))):
        gallery.add(
            features[part], pids=pids[part], camids=camids[part], names=[names[i] for i in part]
        )
    return gallery, features, pids, camids, names


def brute_force(features, query, valid, k):
    """The valid images nearest to a query by a stable sort of float64 distances; the distances."""
    distances = np.sqrt(np.square(features.astype(np.float64) - query).sum(axis=1))
    order = [i for i in np.argsort(distances, kind="stable") if valid[i]][:k]
    missing = k - len(order)
    return [*order, *[-1] * missing], [*distances[order], *[np.inf] * missing]


def assert_found(hits, expected, columns):
    """Compare with `expected`, which holds indices and distances of each query."""
    indices, distances = (np.array(part) for part in zip(*expected, strict=True))
    np.testing.assert_array_equal(hits.indices, indices)
    np.testing.assert_array_equal(hits.distances, distances.astype(np.float32))
    assert hits.indices.dtype == np.int32
    assert hits.distances.dtype == np.float32
    pids, camids, names = columns
    np.testing.assert_array_equal(hits.pids, np.where(indices < 0, -1, pids[indices]))
    np.testing.assert_array_equal(hits.camids, np.where(indices < 0, -1, camids[indices]))
    assert hits.names == tuple(tuple(names[i] if i >= 0 else "" for i in row) for row in indices)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    k=st.integers(1, 8),
    identities=st.none() | st.sets(st.integers(-1, 6)),
    cameras=st.none() | st.integers(0, 4) | st.sets(st.integers(0, 4)),
    not_cameras=st.none() | st.lists(st.integers(0, 4), max_size=3),
    protocol=st.sampled_from(["none", "field", "other cameras", "both"]),
    block_size=st.sampled_from([1, 5, 32, 16384]),
)
def test_search_is_brute_force_with_every_filter(
    seed, count, k, identities, cameras, not_cameras, protocol, block_size
):
    rng = np.random.default_rng(seed)
    gallery, features, pids, camids, names = random_gallery(rng, count)
    query = rng.integers(-1, 2, (3, 4)).astype(np.float32)
    whose, where = rng.integers(-1, 5, 3), rng.integers(0, 4, 3)
    options = {}
    if protocol in ("field", "both"):
        options["pids"] = whose
    if protocol != "none":
        options |= {"camids": where, "own_camera": protocol == "field"}
    hits = gallery.search(
        query,
        k,
        identities=identities,
        cameras=cameras,
        not_cameras=not_cameras,
        block_size=block_size,
        **options,
    )
    valid = pids != -1
    if identities is not None:
        valid &= np.isin(pids, list(identities))
    if cameras is not None:
        valid &= np.isin(camids, [cameras] if isinstance(cameras, int) else list(cameras))
    if not_cameras is not None:
        valid &= ~np.isin(camids, not_cameras)
    expected = []
    for i in range(3):
        own = camids == where[i]
        if protocol == "field":
            own &= (pids == whose[i]) & (pids > 0)
        elif protocol == "none":
            own[:] = False
        expected.append(brute_force(features, query[i], valid & ~own, k))
    assert_found(hits, expected, (pids, camids, names))


@pytest.mark.parametrize("block_size", [100, 16384])
def test_search_is_brute_force_on_real_numbers(rng, block_size):
    gallery, features, pids, camids, names = random_gallery(rng, 3000, 64, integers=False)
    query = np.concatenate([features[pids >= 0][:5], rng.standard_normal((5, 64))]).astype("f4")
    hits = gallery.search(query, 7, block_size=block_size)
    assert_found(
        hits, [brute_force(features, q, pids >= 0, 7) for q in query], (pids, camids, names)
    )
    # An image of the gallery is its own nearest, at distance 0.
    np.testing.assert_array_equal(hits.indices[:5, 0], np.flatnonzero(pids >= 0)[:5])
    np.testing.assert_array_equal(hits.distances[:5, 0], 0)
    assert (hits.distances[5:] > 1).all()


def test_reranking_is_that_of_the_evaluation(rng):
    gallery, features, pids, *_ = random_gallery(rng, 120, 6, integers=False)
    queries = rng.standard_normal((3, 6)).astype(np.float32)
    hits = gallery.search(queries, 7, rerank=True, candidates=50, not_cameras=2)
    plain = gallery.search(queries, 50, not_cameras=2)
    changed = False
    for i, query in enumerate(queries):
        near = plain.indices[i]
        nobody = np.zeros(51, int)
        sets = (
            Descriptors(query[None], nobody[:1], nobody[:1]),
            Descriptors(features[near], nobody[1:], nobody[1:]),
        )
        found, _ = ranking.nearest(*sets, 7, rescore=k_reciprocal(*sets))
        np.testing.assert_array_equal(hits.indices[i], near[found[0]])
        np.testing.assert_array_equal(hits.distances[i], plain.distances[i, found[0]])
        np.testing.assert_array_equal(hits.pids[i], pids[near[found[0]]])
        changed |= (found[0] != np.arange(7)).any()
        alone = gallery.search(query, 7, rerank=True, candidates=50, not_cameras=2)
        np.testing.assert_array_equal(alone.indices[0], hits.indices[i])
    assert changed
    assert 2 not in hits.camids


def test_tiny_descriptors_are_reranked_as_others(rng):
    images, queries = rng.standard_normal((40, 8)), rng.standard_normal((3, 8))
    gallery, tiny = Gallery(), Gallery()
    gallery.add(images)
    tiny.add(images * 2.0**-83)  # The weights of their squared distances overflow float32.
    hits = gallery.search(queries, 10, rerank=True)
    got = tiny.search(queries * 2.0**-83, 10, rerank=True)
    np.testing.assert_array_equal(got.indices, hits.indices)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 21])
def test_few_images_are_reranked(rng, count):
    gallery = Gallery()
    gallery.add(rng.standard_normal((count, 3)))
    hits = gallery.search(rng.standard_normal((2, 3)), 30, rerank=True)
    for row in hits.indices.tolist():
        assert sorted(row[:count]) == list(range(count))
        assert row[count:] == [-1] * (30 - count)


def test_searches_between_additions_find_what_is_there(rng):
    gallery, everything = Gallery(), np.empty((0, 8), np.float32)
    query = rng.standard_normal((2, 8)).astype(np.float32)
    for count in (1, 2, 1, 7, 0, 40, 1, 1, 100):
        new = (rng.standard_normal((count, 8)) + len(everything)).astype(np.float32)
        gallery.add(new)
        everything = np.concatenate([everything, new])
        hits = gallery.search(query, 5)
        nobody = np.zeros(len(everything), int)
        expected = [brute_force(everything, q, nobody == 0, 5) for q in query]
        assert_found(hits, expected, (nobody, nobody, [""] * len(everything)))


def test_the_gallery_is_worked_out_once(rng, monkeypatch):
    built = []
    index = gallery_module.index_gallery

    def counted(descriptors, earlier):
        built.append(len(descriptors.pids))
        return index(descriptors, earlier)

    monkeypatch.setattr(gallery_module, "index_gallery", counted)
    gallery, *_ = random_gallery(rng, 50)
    for _ in range(3):
        gallery.search(gallery.features[:2], cameras=[1, 2])
    gallery.add(gallery.features[:1])
    gallery.search(gallery.features[:2])
    gallery.label(pids=3)
    gallery.search(gallery.features[:2])
    assert built == [50, 51, 51]


def test_what_it_holds_is_shown_and_read_only(rng):
    gallery = Gallery(origin="pmm, step 3")
    assert repr(gallery) == "<Gallery of 0 images, 0 numbers each, origin='pmm, step 3'>"
    assert gallery.features.shape == (0, 0)
    assert gallery.names == ()
    features = rng.standard_normal((3, 5)).astype(np.float32)
    gallery.add(features, names=["a", "b", "c"], camids=2, pids=[4, 5, 6])
    gallery.add(jnp.asarray(features[0]))
    gallery.add(features[:1].astype(np.float64))
    held = [getattr(gallery, name) for name in ("features", "pids", "camids")]
    np.testing.assert_array_equal(held[0], features[[0, 1, 2, 0, 0]])
    np.testing.assert_array_equal(held[1], [4, 5, 6, 0, 0])
    np.testing.assert_array_equal(held[2], [2, 2, 2, 0, 0])
    assert gallery.names == ("a", "b", "c", "", "")
    assert [array.dtype for array in held] == [np.float32, np.int64, np.int64]
    assert (len(gallery), gallery.dim) == (5, 5)
    assert repr(gallery) == "<Gallery of 5 images, 5 numbers each, origin='pmm, step 3'>"
    for array in held:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    # Arrays that were returned earlier do not change.
    gallery.add(features, pids=9)
    gallery.label(pids=[7] * 8)
    np.testing.assert_array_equal(held[1], [4, 5, 6, 0, 0])
    np.testing.assert_array_equal(gallery.pids, [7] * 8)
    np.testing.assert_array_equal(gallery.camids, [2, 2, 2, 0, 0, 0, 0, 0])
    features[:] = 0  # The gallery has its own copy of the caller's arrays.
    assert (gallery.features != 0).all()


def test_labels_given_later_are_searched(rng):
    gallery, features, *_ = random_gallery(rng, 20, integers=False)
    gallery.label(pids=np.arange(1, 21), camids=3)
    hits = gallery.search(features[4], 2, identities=[5, 9])
    np.testing.assert_array_equal(hits.pids[0, 0], 5)
    assert set(hits.indices[0]) == {4, 8}
    assert gallery.search(features[4], 1, pids=5, camids=3).indices[0, 0] != 4
    for wrong in ({"pids": [1, 2]}, {"pids": 3, "camids": [1.5] * 20}):
        with pytest.raises(ValueError, match=r"pids must be 20|camids must be integers"):
            gallery.label(**wrong)
    np.testing.assert_array_equal(gallery.pids, np.arange(1, 21))


def test_few_and_none():
    gallery = Gallery()
    hits = gallery.search(np.zeros((2, 3)), 4)
    assert hits.indices.tolist() == [[-1] * 4] * 2
    assert np.isinf(hits.distances).all()
    assert hits.names == (("",) * 4,) * 2
    gallery.add(np.zeros((0, 3)))
    gallery.add(np.zeros((0, 2)), names=[])
    assert len(gallery) == 0
    gallery.add([[1, 2]])
    assert gallery.search(np.zeros((0, 2)), 3).indices.shape == (0, 3)
    assert gallery.search([1, 2], 3, identities=[]).indices.tolist() == [[-1] * 3]
    assert gallery.search([1, 2], 3, not_cameras=[]).indices.tolist() == [[0, -1, -1]]


NAN, LONG = np.array([[0, 0], [0, np.nan]]), np.array([[1.0, 0], [0, 2e18]])


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.zeros((2, 3)), {}, "3 numbers do not match this gallery's images, of 2"),
        (np.zeros((2, 2, 1)), {}, r"numbers \(images, dimensions\), got float64 \(2, 2, 1\)"),
        (np.zeros((2, 0)), {}, r"got float64 \(2, 0\)"),
        (np.array(["a", "b"]), {}, "descriptors must be numbers"),
        ([[1.0, 2], [3]], {}, "descriptors are not an array"),
        (NAN, {}, "descriptor 1 holds NaN"),
        (np.array([[-np.inf, 0]]), {}, "descriptor 0 holds NaN"),
        (np.array([[0.0, 1e300]]), {}, "descriptor 0 holds NaN or infinity or is longer"),
        (LONG, {}, "descriptor 1 holds NaN or infinity or is longer"),
        (np.zeros((2, 2)), {"pids": [1]}, "pids must be 2 integers, one per image, got 1"),
        (np.zeros((2, 2)), {"pids": [1.0, 2.0]}, "pids must be integers, got float64"),
        (np.zeros((2, 2)), {"camids": "3"}, "camids must be integers"),
        (np.zeros((2, 2)), {"camids": [1, [2]]}, "camids are not an array"),
        (np.zeros((2, 2)), {"camids": [[1], [2]]}, "camids must be integers"),
        (np.zeros((2, 2)), {"names": ["a"]}, "names must be 2, one per image, got 1"),
        (np.zeros((2, 2)), {"names": "ab"}, "names must be several texts"),
        (np.zeros((2, 2)), {"names": [1, 2]}, "names must be texts or paths"),
    ],
)
def test_a_failed_add_changes_nothing(features, options, message):
    gallery = Gallery()
    gallery.add([[1.0, 2.0]], pids=3, camids=4, names=["one"])
    with pytest.raises(ValueError, match=message):
        gallery.add(features, **options)
    assert len(gallery) == 1
    np.testing.assert_array_equal(gallery.features, [[1, 2]])
    assert (gallery.pids[0], gallery.camids[0], gallery.names) == (3, 4, ("one",))
    assert gallery.search([1.0, 2.0], 1).indices[0, 0] == 0


def test_the_longest_descriptors_are_searched():
    gallery = Gallery()
    gallery.add([[1e18, 0.0], [0, 1e18], [-9e17, 0]])
    assert gallery.search([1e18, 0.0], 3).indices.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 2.0}, "k must be a whole number, got 2.0"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"pids": 1}, "pids and own_camera=False need camids"),
        ({"own_camera": False}, "pids and own_camera=False need camids"),
        ({"camids": 1}, "camids have no effect without"),
        ({"pids": [1, 2], "camids": [1, 2]}, "pids must be 1 integers"),
        ({"cameras": 1.5}, "cameras must be integers, got float64"),
        ({"not_cameras": ["a"]}, "not_cameras must be integers"),
        ({"identities": [[1]]}, "identities must be integers"),
        ({"features": np.zeros((1, 3))}, "3 numbers do not match this gallery's images, of 2"),
        ({"features": NAN}, "descriptor 1 holds NaN"),
        ({"features": "who.jpg"}, "descriptors must be numbers"),
    ],
)
def test_bad_searches_are_named(options, message):
    gallery = Gallery()
    gallery.add([[1.0, 2.0]])
    with pytest.raises(ValueError, match=message):
        gallery.search(**{"features": [1.0, 2.0]} | options)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_counts_of_any_type_of_integer(dtype):
    gallery, k = Gallery(), dtype(100)
    gallery.add(np.random.default_rng(0).normal(size=(1000, 4)))
    hits = gallery.search(np.zeros(4), 100, rerank=True, candidates=110)
    got = gallery.search(np.zeros(4), k, rerank=True, candidates=dtype(110), block_size=k)
    assert got.names == hits.names
    np.testing.assert_array_equal(got.indices, hits.indices)


def test_images_added_one_by_one_take_memory_and_time_of_their_number():
    tracemalloc.start()
    gallery, copied, before = Gallery(), 0, None
    for i in range(3000):
        gallery.add(np.full(64, i, np.float32))
        buffer = gallery.features.base
        if buffer is not before:
            copied, before = copied + len(gallery), buffer
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copied < 2.1 * 3000
    assert peak < 3.5 * 3000 * 64 * 4
    np.testing.assert_array_equal(gallery.features[:, 5], np.arange(3000))


def test_an_array_that_became_too_small_is_let_go(rng):
    gallery = Gallery()
    gallery.add(rng.standard_normal((10, 3)))
    gallery.search(np.zeros(3))
    old = weakref.ref(gallery.features.base)
    gallery.add(rng.standard_normal((1, 3)))
    gc.collect()
    assert old() is None


def test_jax_reads_descriptors_in_place(rng):
    gallery = Gallery()
    for count in (1, 3, 50):
        gallery.add(rng.standard_normal((count, 16)).astype(np.float32))
        assert gallery.features.ctypes.data % 64 == 0


def test_a_filter_copies_no_descriptors(rng):
    gallery = Gallery()
    gallery.add(rng.standard_normal((40_000, 64)).astype(np.float32), camids=np.arange(40_000) % 2)
    gallery.search(gallery.features[0], cameras=1, block_size=2048)
    tracemalloc.start()
    hits = gallery.search(gallery.features[0], cameras=1, block_size=2048)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert hits.indices[0, 0] % 2 == 1
    assert peak < gallery.features.nbytes / 8


def test_the_package_alone_is_cheap_and_has_the_gallery():
    program = "import sys, reid_jax; assert 'jax' not in sys.modules; print(reid_jax.Gallery())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"<Gallery of 0 images, 0 numbers each>\n"
    assert reid_jax.Gallery is Gallery


def test_threads_search_while_others_change_and_save(tmp_path):
    """A filtered search once saw the identities of one moment and the rows of another."""
    rng = np.random.default_rng(0)
    gallery = Gallery()
    gallery.add(rng.normal(size=(50, 8)), pids=1, camids=1, names=["1"] * 50)
    gallery.add(np.full((1, 8), 9.0), pids=3, camids=1, names=["3"])
    query, errors, stop = rng.normal(size=(2, 8)), [], threading.Event()

    def repeat(job):
        try:
            while not stop.is_set():
                job()
        except Exception as error:
            errors.append(error)

    def search():
        hits = gallery.search(query, 5, cameras=[1, 2], identities=range(10))
        assert set(hits.pids.ravel().tolist()) <= {1, 2, 3}
        assert [list(map(int, row)) for row in hits.names] == hits.pids.tolist()

    def save():
        gallery.save(tmp_path / "all.gallery")
        kept = Gallery.load(tmp_path / "all.gallery")
        assert list(map(int, kept.names)) == kept.pids.tolist()

    jobs = (
        search,
        search,
        lambda: gallery.add(rng.normal(size=(7, 8)), pids=2, camids=2, names=["2"] * 7),
        lambda: gallery.label(camids=int(rng.integers(1, 3))),
        lambda: gallery.update(np.full((1, 8), rng.normal()), names=["3"], pids=3),
        lambda: time.sleep(0.02) or gallery.remove(identities=2),
        lambda: gallery.search(query, 2, rerank=True),
        save,
    )
    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(Gallery.load(tmp_path / "all.gallery")) >= 51
    assert len(gallery.pids) == len(gallery.names) == len(gallery.features) == len(gallery)


def test_a_gallery_is_pickled_with_its_images():
    gallery = Gallery("tests")
    gallery.add(np.eye(3), pids=[4, 5, 6], names=["a", "b", "c"])
    gallery.search(np.eye(3))
    copy = pickle.loads(pickle.dumps(gallery))
    assert copy.search(np.eye(3)[1], 1).names == (("b",),)
    copy.add(np.eye(3))
    assert (len(copy), len(gallery), copy.origin) == (6, 3, "tests")
