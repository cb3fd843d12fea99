"""Hits of a search: within a distance, as rows, and as files."""

import csv
import json
import pathlib

import numpy as np
import pytest

import reid_jax


@pytest.fixture
def gallery():
    gallery = reid_jax.Gallery()
    gallery.add([[0.0], [1], [2]], pids=[7, 8, 9], camids=[1, 2, 3], names=["a", 'b,\n"', "c"])
    return gallery


def test_hits_within_a_distance(gallery):
    hits = gallery.search([[0.0], [9]], k=4)
    near = hits.within(1)
    assert near.indices.tolist() == [[0, 1, -1, -1], [-1] * 4]
    assert near.distances.tolist() == [[0, 1, np.inf, np.inf], [np.inf] * 4]
    assert near.pids.tolist() == [[7, 8, -1, -1], [-1] * 4]
    assert near.camids.tolist() == [[1, 2, -1, -1], [-1] * 4]
    assert near.names == (("a", 'b,\n"', "", ""), ("",) * 4)
    for own, others in zip(near, hits, strict=True):
        assert getattr(own, "dtype", tuple) == getattr(others, "dtype", tuple)
    for field, whole in zip(hits.within(np.inf), hits, strict=True):
        np.testing.assert_array_equal(field, whole)
    for distance in (-1, np.nan):
        with pytest.raises(ValueError, match="it must be a number of at least 0"):
            hits.within(distance)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_a_distance_is_of_any_float(gallery, kind):
    hits = gallery.search([[0.1]], k=1)
    assert hits.within(kind(0.1)).indices.tolist() == [[0]]


def test_a_far_image_between_near_ones_is_left_out():
    hits = reid_jax.gallery.Hits(
        np.array([[4, 5, 6]], np.int32),
        np.array([[1, 3, 2]], np.float32),
        np.array([[7, 8, 9]]),
        np.array([[1, 2, 3]]),
        (("a", "b", "c"),),
    ).within(2)
    assert hits.indices.tolist() == [[4, 6, -1]]
    assert hits.distances.tolist() == [[1, 2, np.inf]]
    assert (hits.pids.tolist(), hits.camids.tolist()) == ([[7, 9, -1]], [[1, 3, -1]])
    assert hits.names == (("a", "c", ""),)


ROWS = [
    {"query": "x", "rank": 1, "name": "a", "pid": 7, "camid": 1, "distance": 0.5},
    {"query": "x", "rank": 2, "name": 'b,\n"', "pid": 8, "camid": 2, "distance": 0.5},
    {"query": "y", "rank": 1, "name": "c", "pid": 9, "camid": 3, "distance": 0.25},
]


def found(gallery):
    return gallery.search([[0.5], [2.25]], k=2).within(0.5)


def test_rows_and_files(gallery, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hits = found(gallery)
    assert hits.rows(["x", "y"]) == ROWS
    assert [row["query"] for row in hits.rows()] == [0, 0, 1]
    hits.save("new/hits.json", queries=["x", "y"])
    assert json.loads(pathlib.Path("new/hits.json").read_text()) == ROWS
    hits.save(pathlib.Path("hits.CSV"), ["x", "y"])
    with open("hits.CSV", newline="") as file:
        texts = [{key: str(value) for key, value in row.items()} for row in ROWS]
        assert list(csv.DictReader(file)) == texts
    for queries, named in (([pathlib.Path("x"), b"y"], ["x", "x", "y"]), (np.arange(2), [0, 0, 1])):
        hits.save("named.json", queries=queries)
        rows = json.loads(pathlib.Path("named.json").read_text())
        assert [row["query"] for row in rows] == named
        hits.save("named.csv", queries=queries)
        with open("named.csv", newline="") as file:
            assert [row["query"] for row in csv.DictReader(file)] == [str(name) for name in named]
    gallery.search([[0.5]], cameras=[]).save("none.csv")
    assert pathlib.Path("none.csv").read_text() == "query,rank,name,pid,camid,distance\n"


def test_names_that_are_no_text_are_kept(tmp_path):
    gallery = reid_jax.Gallery()
    gallery.add([1.0], names=[b"\xff.jpg"])
    hits = gallery.search([1.0], 1)
    for ending in ("json", "csv"):
        hits.save(tmp_path / f"hits.{ending}")
        assert "\\udcff.jpg" in (tmp_path / f"hits.{ending}").read_text("utf-8")
    assert json.loads((tmp_path / "hits.json").read_text())[0]["name"] == hits.names[0][0]


def test_names_with_any_end_of_a_line_are_one_cell(tmp_path):
    names = ["a\rb", "a\r\nb", "a\nb", "\r", "\n", "a\r\n"]
    gallery = reid_jax.Gallery()
    gallery.add(np.arange(6.0)[:, None], names=names)
    gallery.search([0.0], 6).save(tmp_path / "hits.csv")
    with open(tmp_path / "hits.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert b'\n0,1,"a\rb",0,0,0.0\n' in (tmp_path / "hits.csv").read_bytes()


def test_several_writers_of_one_file_have_several_drafts(gallery, tmp_path):
    (tmp_path / "hits.csv.tmp").mkdir()
    found(gallery).save(tmp_path / "hits.csv")
    assert (tmp_path / "hits.csv").is_file()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '.*/folder\.csv'$"):
        found(gallery).save(tmp_path / "folder.csv")


def test_bad_files_and_queries_are_named(gallery, tmp_path):
    hits = found(gallery)
    with pytest.raises(ValueError, match=r"'.*hits.txt' must end in .json or .csv"):
        hits.save(tmp_path / "hits.txt")
    with pytest.raises(ValueError, match="queries must be 2 names, got 1"):
        hits.save(tmp_path / "hits.csv", queries=["x"])
    with pytest.raises(ValueError, match="queries must be several names, one per query"):
        hits.rows("xy")
    with pytest.raises(ValueError, match="a URL"):
        hits.save("s3://hits.csv")
    assert list(tmp_path.iterdir()) == []
