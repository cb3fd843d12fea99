import importlib.util
import json
import os
import pathlib

import numpy as np
import pytest

from benchmarks import gallery
from tests.benchmarks import schema

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks/results"
SETTINGS = {name: {int} for name in ("images", "dim", "queries", "top", "repeats")}
SETTINGS |= {"engines": [str]}
ROW = {
    "engine": str,
    "what": str,
    "queries": ({int}, None),
    "seconds": {"minimum": {float}, "median": {float}},
    "recall": (float, None),
    "disk_bytes": ({int}, None),
    "peak_bytes": {int},
}
SIZES = ("--images=1500", "--dim=8", "--queries=3", "--top=2", "--repeats=2")
SEARCHES = ["search", "one camera", "other cameras"]


def run(tmp_path, *options):
    path = tmp_path / "gallery.json"
    gallery.main([*SIZES, *options, f"--output={path}"])
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROW)
    return content


def rows(content, engine, what, value):
    return [
        row[value] for row in content["results"] if (row["engine"], row["what"]) == (engine, what)
    ]


def test_what_is_written_and_printed(tmp_path, capsys):
    content = run(tmp_path, "--engines=exact")
    assert content["command"].endswith(" ".join([*SIZES, "--engines=exact"]))
    done = [(row["what"], row["queries"]) for row in content["results"]]
    searches = [(what, queries) for what in SEARCHES for queries in (1, 3)]
    first = [("add", None), ("index and first search", 1)]
    assert done == [*first, *searches, ("save", None), ("load", None)]
    assert rows(content, "exact", "search", "recall") == [None, 1.0]
    assert rows(content, "exact", "save", "disk_bytes")[0] > 1500 * 8 * 4
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(done)


@pytest.mark.parametrize(
    ("library", "flat", "cells"),
    [("faiss", "faiss_flat", "faiss_ivf"), ("milvus_lite", "milvus_flat", "milvus_ivf")],
)
@pytest.mark.extras
def test_other_engines_are_measured_alike(tmp_path, library, flat, cells):
    pytest.importorskip(library)
    content = run(tmp_path, f"--engines=exact,{flat},{cells}")
    assert content["settings"]["engines"] == ["exact", flat, cells]
    assert rows(content, flat, "search", "recall") == [None, 1.0]
    (recall,) = filter(None, rows(content, cells, "search", "recall"))
    assert 0.6 < recall <= 1
    for engine in (flat, cells):
        assert rows(content, engine, "search", "queries") == [1, 3]
        assert rows(content, engine, "save", "disk_bytes")[0] > 1500 * 8 * 4
        assert rows(content, engine, "one camera", "queries") == []


def test_a_server_is_measured_alike(tmp_path):
    if "REID_JAX_MILVUS" not in os.environ:
        pytest.skip("REID_JAX_MILVUS, the address of a Milvus server, is not set")
    content = run(tmp_path, "--engines=exact,milvus_server,milvus_server_hnsw")
    assert rows(content, "milvus_server", "search", "recall") == [None, 1.0]
    (recall,) = filter(None, rows(content, "milvus_server_hnsw", "search", "recall"))
    assert 0.6 < recall <= 1
    assert rows(content, "milvus_server", "save", "disk_bytes") == [None]


def test_a_part_without_its_library_is_left_out(tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "faiss" else found(name)
    )
    assert run(tmp_path, "--engines=faiss_ivf,exact")["settings"]["engines"] == ["exact"]
    assert "faiss_ivf is left out: faiss not installed" in capsys.readouterr().err
    monkeypatch.delenv("REID_JAX_MILVUS", raising=False)
    assert run(tmp_path, "--engines=milvus_server,exact")["settings"]["engines"] == ["exact"]
    assert "REID_JAX_MILVUS not set" in capsys.readouterr().err


def test_recall_is_the_share_that_was_found():
    exact = np.array([[1, 2], [3, 4]])
    assert gallery.recall(np.array([[2, 1], [-1, 3]]), exact) == 0.75


def test_descriptors_are_clusters():
    people = gallery.People(1500, 64)
    blocks = [people.block(i) for i in range(2)]
    assert [len(block) for block in blocks] == [1000, 500]
    images = np.concatenate(blocks)
    queries = people.queries(6)
    # The i-th of 6 queries shows the person of images 250 i to 250 i + 9.
    near = np.linalg.norm(images - queries[:, None], axis=2).argsort(axis=1)[:, :3] // 10
    assert (near == 25 * np.arange(6)[:, None]).all()
    np.testing.assert_array_equal(people.sample(1200), images[:1200])
    np.testing.assert_array_equal(people.sample(10), images[:10])


@pytest.mark.parametrize("name", ["gallery", "gallery_milvus", "gallery_million", "gallery_server"])
def test_published_figures_have_the_schema(name):
    content = json.loads((RESULTS / f"{name}.json").read_text())
    schema.check_record(content, SETTINGS, ROW)
    assert content["settings"]["images"] >= 200_000
    assert content["settings"]["engines"][0] == "exact"
    embedded = name in ("gallery_milvus", "gallery_million")
    assert embedded == ("milvus_ivf" in content["settings"]["engines"])


def test_mistakes_are_named(tmp_path):
    with pytest.raises(SystemExit, match="--images is 0; it must be at least 1"):
        gallery.main(["--images=0", f"--output={tmp_path / 'x.json'}"])
    with pytest.raises(SystemExit, match="unknown 'other' in --engines: choose from"):
        gallery.main(["--engines=other", f"--output={tmp_path / 'x.json'}"])
