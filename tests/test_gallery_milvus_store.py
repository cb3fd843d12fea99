"""The requests that a gallery sends to Milvus: their sizes, their number, and who creates what."""

import threading

import numpy as np
import pytest

import reid_jax
from reid_jax import gallery_milvus_store

# grpc, pandas and the embedded database.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("milvus")]


def test_requests_are_small_enough_for_the_memory(tmp_path, rng, monkeypatch):
    gallery = reid_jax.MilvusGallery(tmp_path / "requests.db")
    gallery.add(rng.standard_normal((100, 8)))
    sizes, search = [], gallery._store._client.search

    def counted(*arguments, data, **options):
        sizes.append(len(data))
        return search(*arguments, data=data, **options)

    monkeypatch.setattr(gallery._store._client, "search", counted)
    queries = rng.standard_normal((5, 8))
    expected = gallery.search(queries, 3)
    assert sizes == [5]
    # One number less than three queries need, and less than one needs.
    for numbers, parts in ((3 * 100 * 8 - 1, [2, 2, 1]), (1, [1] * 5)):
        sizes.clear()
        monkeypatch.setattr(gallery_milvus_store, "_NUMBERS", numbers)
        np.testing.assert_array_equal(gallery.search(queries, 3).indices, expected.indices)
        assert sizes == parts
    gallery.close()


def test_the_first_search_writes_many_new_images_into_the_index(tmp_path, rng):
    """Searches of the embedded database are slow over images that it has in its log only."""
    gallery = reid_jax.MilvusGallery(tmp_path / "new.db")
    features, most = rng.standard_normal((1500, 4)), gallery_milvus_store.BATCH

    def written():
        return sum(1 for _ in tmp_path.rglob("data_*.parquet"))

    gallery.add(features[: most - 1])
    gallery.search(features[0])
    assert written() == 0
    gallery.add(features[most - 1 :])
    assert written() == 0
    for _ in range(2):
        assert gallery.search(features[1499], 1).distances[0, 0] == 0
        assert written() == 1
    gallery.close()


def test_messages_are_small_enough_for_a_server(database, rng, monkeypatch):
    """A server refuses larger ones, such as the vectors of 16,384 candidates."""
    gallery, memory = reid_jax.MilvusGallery(database, "messages"), reid_jax.Gallery()
    row, sizes = 8 + gallery_milvus_store._ROW, []
    monkeypatch.setattr(gallery_milvus_store, "_MESSAGE", 100 * row)

    def noted(name):
        call = getattr(gallery._store._client, name)

        def noting(*arguments, **options):
            result = call(*arguments, **options)
            rows = arguments[1] if name == "upsert" else result
            if name == "search":
                rows = [hit for hits in result for hit in hits if "vector" in hit["entity"]]
            sizes.append((name, len(rows)))
            return result

        monkeypatch.setattr(gallery._store._client, name, noting)

    for name in ("upsert", "query", "search"):
        noted(name)
    features, names = rng.standard_normal((250, 8)), [str(i) for i in range(250)]
    for each in (gallery, memory):
        each.add(features, names=names)
    assert [size for size in sizes if size[0] == "upsert"] == [
        ("upsert", n) for n in (100, 100, 50)
    ]
    for k, expected in (
        (10, [("search", 2 * 42), ("search", 42)]),  # Two queries of 42 candidates each.
        (100, [("search", 0), ("query", 100), ("query", 32)] * 3),  # Vectors are asked for later.
    ):
        sizes.clear()
        found, exact = (each.search(features[:3], k) for each in (gallery, memory))
        assert sizes == expected
        assert found.names == exact.names
        np.testing.assert_array_equal(found.distances, exact.distances)
    gallery.close()


def test_a_server_answers_several_requests_at_the_same_time(database, rng, monkeypatch):
    gallery = reid_jax.MilvusGallery(database, "several")
    gallery.add(np.eye(4), names=list("abcd"), camids=[1, 2, 3, 4])
    barrier, search = threading.Barrier(4), gallery._store.search

    def waiting(*arguments):
        barrier.wait(timeout=10)
        return search(*arguments)

    monkeypatch.setattr(gallery._store, "search", waiting)
    monkeypatch.setattr(gallery._store, "threads", 4)
    hits = gallery.search(np.eye(4), 1, camids=[4, 3, 2, 1], own_camera=False)
    assert hits.names == (("a",), ("b",), ("c",), ("d",))
    gallery.close()


def test_a_gallery_sees_a_collection_that_another_one_created(database, monkeypatch):
    first, second, third = (reid_jax.MilvusGallery(database, "shared") for _ in range(3))
    create = first._store.create

    def late(dim):
        second.add([[1.0, 2]], names=["a"])
        create(dim)

    monkeypatch.setattr(first._store, "create", late)
    with pytest.raises(ValueError, match=r"descriptors of 3 numbers do not match .* of 2, in coll"):
        first.add([[1.0, 2, 3]], names=["b"])
    for gallery in (first, second, third):
        assert (len(gallery), gallery.dim, gallery.names) == (1, 2, ("a",))
        assert gallery.search([1.0, 2], 2).names == (("a", ""),)
        gallery.close()


def test_a_creation_that_was_stopped_is_completed(database, monkeypatch):
    gallery = reid_jax.MilvusGallery(database, "begun")

    def stopped(*arguments, **options):
        raise OSError("the program is gone")

    monkeypatch.setattr(gallery._store._client, "create_index", stopped)
    with pytest.raises(OSError, match="is gone"):
        gallery.add([1.0, 2], names=["a"])
    gallery.close()
    monkeypatch.undo()
    for images, index in enumerate((None, "HNSW", "HNSW")):
        gallery = reid_jax.MilvusGallery(database, "begun", index=index)
        assert len(gallery) == max(images - 1, 0)
        if index:
            gallery.add([1.0, 2], names=[str(images)])
            assert gallery._store.index.kind == "HNSW"
        gallery.close()


@pytest.mark.parametrize("separate", [False, True])
def test_a_search_is_repeated_if_its_images_are_replaced(database, monkeypatch, separate):
    """A server has no vectors of images that are replaced between finding and answering."""
    from pymilvus.exceptions import MilvusException

    gallery, tried = reid_jax.MilvusGallery(database, f"replaced_{separate}"), []
    gallery.add(np.eye(3), names=list("abc"))
    client, replaced = gallery._store._client, 2
    search, query = client.search, client.query

    def searching(*arguments, **options):
        tried.append(options["output_fields"] == ["key"])
        if not separate and len(tried) <= replaced:
            raise MilvusException(message="incomplete query result, missing id 1")
        return search(*arguments, **options)

    def querying(*arguments, **options):
        return query(*arguments, **options)[len(tried) <= replaced :]

    monkeypatch.setattr(client, "search", searching)
    monkeypatch.setattr(client, "query", querying)
    if separate:
        monkeypatch.setattr(gallery_milvus_store, "_MESSAGE", 1)
    assert gallery.search(np.eye(3)[1], 2).names[0][0] == "b"
    assert tried == [separate] * 3
    replaced = 100
    with pytest.raises(OSError, match=r"^collection 'replaced_.* of .*: its images are being"):
        gallery.search(np.eye(3)[1], 2)
    gallery.close()


def test_changes_of_images_that_another_program_removes_are_one_line(database, monkeypatch):
    gallery = reid_jax.MilvusGallery(database, "gone")
    gallery.add(np.eye(3), names=list("abc"), pids=1)
    keys = gallery._keys

    def late(names, once):
        found = keys(names, once=once)
        gallery._store.delete("name == 'b'")
        return found

    monkeypatch.setattr(gallery, "_keys", late)
    with pytest.raises(OSError, match=r"replaced or removed 1 image of this call: repeat it$"):
        gallery.update(np.ones((2, 3)), names=["a", "b"])
    assert gallery.names == ("a", "c")
    gallery.close()
