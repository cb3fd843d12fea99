import json
import pathlib

import pytest

from benchmarks import gallery
from tests.benchmarks import schema

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks/results"
SETTINGS = {name: {int} for name in ("images", "dim", "queries", "top", "repeats")}
ROW = {
    "what": str,
    "queries": ({int}, None),
    "seconds": {"minimum": {float}, "median": {float}},
    "peak_bytes": {int},
}
SEARCHES = ["search", "one camera", "other cameras"]


def test_what_is_written_and_printed(tmp_path, capsys):
    path = tmp_path / "gallery.json"
    sizes = ["--images=1500", "--dim=8", "--queries=3", "--top=2", "--repeats=2"]
    gallery.main([*sizes, f"--output={path}"])
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROW)
    assert content["command"].endswith(" ".join(sizes))
    done = [(row["what"], row["queries"]) for row in content["results"]]
    searches = [(what, queries) for what in SEARCHES for queries in (1, 3)]
    first = [("add", None), ("index and first search", 1)]
    assert done == [*first, *searches, ("save", None), ("load", None)]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(done)


def test_published_figures_have_the_schema():
    content = json.loads((RESULTS / "gallery.json").read_text())
    schema.check_record(content, SETTINGS, ROW)
    assert content["settings"]["images"] == 500_000


def test_mistakes_are_named(tmp_path):
    with pytest.raises(SystemExit, match="--images is 0; it must be at least 1"):
        gallery.main(["--images=0", f"--output={tmp_path / 'x.json'}"])
