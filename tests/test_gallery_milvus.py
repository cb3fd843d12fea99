"""A gallery in Milvus finds the same images as one in memory.

    REID_JAX_MILVUS=http://localhost:19530 pytest tests/test_gallery_milvus*.py

runs the same tests on a server, in a database of their own.
"""

import threading

import numpy as np
import pytest

import reid_jax
from reid_jax import gallery_milvus, gallery_milvus_images

# grpc, pandas and the embedded database.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("milvus")]


@pytest.fixture(params=["memory", "milvus"])
def make(request, database):
    """A function that makes an empty gallery."""
    made = []

    def make():
        if request.param == "memory":
            return reid_jax.Gallery()
        name = "".join(c if c.isalnum() else "_" for c in request.node.name)
        made.append(reid_jax.MilvusGallery(database, f"{name}_{len(made)}"))
        return made[-1]

    yield make
    for gallery in made:
        gallery.close()


def fill(gallery, rng, count, dim=4, integers=True):
    draw = rng.integers(-1, 2, (count, dim)) if integers else rng.standard_normal((count, dim))
    pids, camids = rng.integers(-1, 5, count), rng.integers(0, 4, count)
    names = [f'image {i}, "ä\\' for i in range(count)]
    gallery.add(draw, pids=pids, camids=camids, names=names)
    return draw.astype(np.float32), pids, camids, names


FILTERS = [
    {},
    {"identities": {1, 3}},
    {"cameras": 2, "identities": range(4)},
    {"not_cameras": [0, 1]},
    {"identities": []},
    {"not_cameras": []},
    {"pids": [1, 2, 0], "camids": [1, 2, 3]},
    {"camids": [1, 2, 3], "own_camera": False},
    {"pids": 3, "camids": 1, "own_camera": False, "not_cameras": 0},
    {"rerank": True, "candidates": 30, "not_cameras": 0},
]


@pytest.mark.parametrize("integers", [True, False])
def test_the_same_names_in_the_same_order(database, rng, integers):
    """With few values, many images tie, also at the end of the candidates."""
    galleries = reid_jax.Gallery(), reid_jax.MilvusGallery(database, f"same_{integers}")
    for gallery in galleries:
        fill(gallery, np.random.default_rng(1), 400, integers=integers)
    queries = rng.integers(-1, 2, (3, 4)).astype(np.float32)
    for filters in FILTERS:
        memory, milvus = (gallery.search(queries, 12, **filters) for gallery in galleries)
        assert memory.names == milvus.names, filters
        for field in ("distances", "pids", "camids"):
            np.testing.assert_array_equal(getattr(memory, field), getattr(milvus, field))
            assert getattr(memory, field).dtype == getattr(milvus, field).dtype
        np.testing.assert_array_equal(memory.indices >= 0, milvus.indices >= 0)
    assert len(galleries[0]) == len(galleries[1]) == 400
    assert galleries[0].names == galleries[1].names
    galleries[1].close()


def test_images_are_replaced_labelled_and_removed(make, rng):
    gallery = make()
    features, _, _, names = fill(gallery, rng, 20, integers=False)
    gallery.label(pids=np.arange(1, 21), camids=5)
    hits = gallery.search(features, 1)
    assert hits.pids[:, 0].tolist() == list(range(1, 21))
    assert set(hits.camids[:, 0]) == {5}
    gallery.update([[50.0] * 4, [60.0] * 4], names=[names[7], names[3]], camids=[8, 9])
    hits = gallery.search([[60.0] * 4, [50.0] * 4], 1)
    assert hits.names == ((names[3],), (names[7],))
    assert hits.camids.tolist() == [[9], [8]]
    assert hits.pids.tolist() == [[4], [8]]
    assert gallery.remove(names=names[:5], cameras=5) == 4
    assert gallery.remove(cameras=[9]) == 1
    assert gallery.remove(identities=[100]) == 0
    assert gallery.remove(names=[]) == 0
    assert gallery.names == tuple(names[5:])
    assert len(gallery) == 15
    assert gallery.search(features, 20).names[0][15:] == ("",) * 5


def test_few_and_none(make):
    gallery = make()
    assert (len(gallery), gallery.dim, gallery.names) == (0, 0, ())
    assert gallery.search([[1.0, 2.0]], 2).names == (("", ""),)
    assert gallery.remove(cameras=1) == 0
    gallery.add(np.zeros((0, 3)))
    gallery.add([1, 2])
    gallery.add([[1, 2], [3, 4]], names=["", "x"], camids=7)
    assert (len(gallery), gallery.dim, gallery.names) == (3, 2, ("", "", "x"))
    hits = gallery.search([3, 4], 4)
    assert hits.names == (("x", "", "", ""),)
    assert hits.camids.tolist() == [[7, 0, 7, -1]]
    assert gallery.search(np.zeros((0, 2)), 3).indices.shape == (0, 3)


NAN = [[0, np.nan]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.add([[1.0, 2, 3]]), "descriptors of 3 numbers do not match .* of 2"),
        (lambda g: g.search([[1.0, 2, 3]]), "queries of 3 numbers do not match .* of 2"),
        (lambda g: g.update([[1.0, 2, 3]], names=["a"]), "descriptors of 3 numbers do not match"),
        (lambda g: g.add(NAN), "descriptor 0 holds NaN"),
        (lambda g: g.search(NAN), "descriptor 0 holds NaN"),
        (lambda g: g.add([1, 2], names=["x", "y"]), "names must be 1, one per image, got 2"),
        (lambda g: g.add([1, 2], camids=1.5), "camids must be integers"),
        (lambda g: g.update([1, 2], names=["b"]), "no image of the gallery is named 'b'$"),
        (lambda g: g.update([1, 2], names=[""]), "no image of the gallery is named ''$"),
        (lambda g: g.update(np.ones((2, 2)), names=["a", "a"]), "names holds 'a' twice"),
        (lambda g: g.update([1, 2], names=["a"], pids=[1, 2]), "pids must be 1 integers"),
        (lambda g: g.remove(), "remove needs names, identities"),
        (lambda g: g.remove(names=["a", "b"]), "no image of the gallery is named 'b'$"),
        (lambda g: g.remove(names=[b"\xff"]), "no image of the gallery is named"),
        (lambda g: g.label(pids=[1, 2]), "pids must be 1 integers"),
        (lambda g: g.search([1, 2], 0), "k must be at least 1"),
        (lambda g: g.search([1, 2], camids=1), "camids have no effect without"),
        (lambda g: g.search([1, 2], cameras="a"), "cameras must be integers"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(make, call, message):
    gallery = make()
    gallery.add([1, 2], names=["a"], pids=4, camids=5)
    with pytest.raises(ValueError, match=message) as error:
        call(gallery)
    assert len(str(error.value).splitlines()) == 1
    hits = gallery.search([1, 2], 2)
    assert (hits.names, hits.pids.tolist()) == ((("a", ""),), [[4, -1]])
    assert hits.distances[0, 0] == 0


def test_threads_search_while_others_change(make):
    gallery, errors = make(), []
    gallery.add(np.eye(3), names=["a", "b", "c"], pids=[1, 2, 3])

    def repeat(job):
        try:
            for _ in range(10):
                job()
        except Exception as error:
            errors.append(error)

    def search():
        hits = gallery.search(np.eye(3), 1, identities=range(1, 4))
        assert hits.names == (("a",), ("b",), ("c",))

    def search_all():
        assert gallery.search([1, 0, 0], 8).names[0][0] == "a"

    def change():
        gallery.add(np.ones((5, 3)), names=list("vwxyz"), pids=9)
        gallery.update([[5, 5, 5]], names=["v"])
        assert gallery.remove(identities=9) == 5

    jobs = search, search, search_all, search_all, change
    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert gallery.names == ("a", "b", "c")


def test_an_addition_that_was_stopped_is_repeated(database, rng, monkeypatch):
    gallery = reid_jax.MilvusGallery(database, "stopped")
    features, names = rng.standard_normal((25, 3)), [f"{i}.jpg" for i in range(25)]
    monkeypatch.setattr(gallery_milvus_images, "BATCH", 10)
    upsert, sizes = gallery._store.upsert, []

    def stopped(rows):
        if len(sizes) == 2:
            raise OSError("the server is gone")
        sizes.append(len(rows))
        upsert(rows)

    monkeypatch.setattr(gallery._store, "upsert", stopped)
    with pytest.raises(OSError, match="is gone"):
        gallery.add(features, names=names)
    assert (sizes, gallery.names) == ([10, 10], tuple(names[:20]))
    monkeypatch.undo()
    gallery.add(features[::-1], names=names[::-1])
    assert sorted(gallery.names) == sorted(names)
    assert gallery.names[:20] == tuple(names[:20])  # They keep their places.
    assert gallery.search(features, 1).names == tuple((name,) for name in names)
    gallery.add(features[:1] + 9, names=names[:1])
    assert len(gallery) == 25
    assert gallery.search(features[0], 1).distances[0, 0] > 0
    gallery.close()


def test_a_database_keeps_its_images(database, rng):
    gallery = reid_jax.MilvusGallery(database, "people", index="HNSW", metric="IP", origin="pmm")
    features, _, _, names = fill(gallery, rng, 50, integers=False)
    assert repr(gallery) == (
        f"<MilvusGallery of 50 images, 4 numbers each, in collection 'people' of '{database}'>"
    )
    gallery.close()
    gallery = reid_jax.MilvusGallery(database, "people")
    assert (gallery.dim, gallery.origin, gallery.names) == (4, "pmm", tuple(names))
    assert gallery._store.index[:2] == ("HNSW", "IP")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    gallery.update(unit, names=names, pids=1)
    hits = gallery.search(unit, 1)
    assert hits.names == tuple((name,) for name in names)
    for options, message in (
        ({"index": "FLAT"}, "has the index 'HNSW', not 'FLAT'"),
        ({"metric": "L2"}, "has the metric 'IP', not 'L2'"),
        ({"origin": "bdb"}, "has the origin 'pmm', not 'bdb'"),
    ):
        with pytest.raises(ValueError, match=f"collection 'people' of '.*' {message}: leave"):
            reid_jax.MilvusGallery(database, "people", **options)
    gallery.close()


@pytest.mark.parametrize("index", ["HNSW", "ivf_flat"])
def test_other_indexes_find_near_images(database, rng, index):
    gallery = reid_jax.MilvusGallery(database, f"of_{index}", index=index)
    features, _, _, names = fill(gallery, rng, 600, 8, integers=False)
    gallery.label(pids=1)
    hits = gallery.search(features[:20], 3)
    assert [row[0] for row in hits.names] == names[:20]
    assert (np.diff(hits.distances, axis=1) >= 0).all()
    gallery.close()


def test_the_embedded_database_prints_nothing(tmp_path, capfd, caplog):
    gallery = reid_jax.MilvusGallery(tmp_path / "quiet.db")
    gallery.add(np.eye(2), names=["a", "b"])
    assert gallery.names == ("a", "b")
    gallery.search(np.eye(2), 1)
    gallery.close()
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_names_that_cannot_be_stored_are_refused(database):
    gallery = reid_jax.MilvusGallery(database, "names")
    with pytest.raises(ValueError, match=r"^the name '\\udcff.jpg' is not text: rename the file$"):
        gallery.add([1.0, 2], names=[b"\xff.jpg"])
    with pytest.raises(ValueError, match="names holds 'a' twice; in Milvus, each is one"):
        gallery.add(np.eye(2), names=["a", "a"])
    with pytest.raises(ValueError, match="k must be at least 1 and at most 16384, got 16385"):
        gallery.search([1.0, 2], 16385)
    assert len(gallery) == 0
    gallery.close()


def test_a_collection_of_another_program_is_refused(database):
    from pymilvus import MilvusClient

    client = MilvusClient(str(database))
    client.create_collection("foreign", dimension=5)
    with pytest.raises(ValueError, match=r"collection 'foreign' .* was not written by MilvusGall"):
        reid_jax.MilvusGallery(database, "foreign")
    client.close()


def test_more_candidates_are_taken_until_ties_are_decided(database, monkeypatch):
    gallery = reid_jax.MilvusGallery(database, "ties")
    gallery.add(np.ones((300, 2)), names=[str(i) for i in range(300)])
    limits, search = [], gallery._store.search

    def backwards(queries, limit, expression):
        """Candidates in another order, as a server may return equally near ones."""
        limits.append(limit)
        return [rows[::-1] for rows in search(queries, limit, expression)]

    monkeypatch.setattr(gallery._store, "search", backwards)
    assert gallery.search([0.0, 0], 3).names == (("0", "1", "2"),)
    assert limits == [3 + gallery_milvus._MORE, 140, 560]
    gallery.add(np.ones((1, 2)), names=["0"])  # It keeps its place.
    assert gallery.search([0.0, 0], 3).names == (("0", "1", "2"),)
    gallery.close()
