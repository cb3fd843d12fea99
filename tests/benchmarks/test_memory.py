import json
import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks import memory
from reid_jax.data import layouts
from tests.benchmarks import schema

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = {"rows": [str], "spare": int, "small": bool}
KNOWN = {"network": str}
KNOWN |= {name: {int} for name in ("batch", "steps", *memory.SIZE, "file_bytes")}
KNOWN |= {name: {int} for name in ("images_bytes", "descriptors_bytes")}
KNOWN |= {"network_bytes": int, "seconds": {float}}
COUNTED = {f"{name}_bytes": ({int}, None) for name in ("program", "expected", "limit", "peak")}
ROWS = tuple(
    {column: {"row": str, **own}.get(column) for column in memory.COLUMNS}
    for own in (KNOWN | COUNTED, {"note": str})
)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the script with `--spare=0`; return what it prints and writes."""
    path = tmp_path_factory.mktemp("results") / "memory.json"
    options = ["--small", "--rows=memory", "--spare=0"]
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", *options, f"--output={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(path.read_text()), done


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_peak_above_its_limit_fails(output):
    """A small run needs more than the expected size, for compilers and libraries."""
    content, done = output
    schema.check_record(content, SETTINGS, ROWS)
    (row,) = content["results"]
    assert row["peak_bytes"] > row["limit_bytes"] > row["expected_bytes"]
    assert done.returncode == 1
    message = (
        f"memory: the peak, {row['peak_bytes'] / 2**20:,.0f} MiB, is above the limit of "
        f"{row['limit_bytes'] / 2**20:,.0f} MiB"
    )
    assert done.stderr.splitlines()[-1] == message
    line = done.stdout.splitlines()[-1].split()
    assert (line[0], line[-1]) == ("memory", f"{row['peak_bytes'] / 2**20:,.0f}")

    # The expected size is the sum of the known parts.
    assert {name: row[name] for name in memory.SMALL} == memory.SMALL
    images = 48 + 8 + 40
    assert row["images_bytes"] == images * 96 * 64 * 3
    assert row["descriptors_bytes"] == 4 * 48 * 3 * 16
    assert row["expected_bytes"] == sum(row[f"{part}_bytes"] for part in memory.PARTS)
    assert 100 * 2**20 < row["program_bytes"] < row["peak_bytes"]
    # With the default of --spare it would not have failed.
    assert memory.excesses([memory.judge(row, 2048)]) == []
    for private in (str(ROOT), os.uname().nodename):
        assert private not in json.dumps(content)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("memory*.json")))
def test_published_figures_have_the_schema_and_are_below_their_limits(path):
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROWS)
    assert memory.excesses(content["results"]) == []
    for row in content["results"]:
        if row["row"] != "full" and not content["settings"]["small"]:
            assert {name: row[name] for name in memory.SIZE} == memory.SIZE
    assert all(row["row"] in memory.table(content["results"]) for row in content["results"])


def test_limits():
    row = dict.fromkeys(memory.COLUMNS) | {f"{part}_bytes": 2**28 for part in memory.PARTS}
    row |= {"row": "device", "peak_bytes": 2**30}
    judged = memory.judge(row, 10)
    assert judged["expected_bytes"] == 2**30
    assert judged["limit_bytes"] == 2**30 + 2**26 + 10 * 2**20
    assert memory.excesses([judged]) == []
    above = judged | {"peak_bytes": judged["limit_bytes"] + 1}
    assert memory.excesses([judged, above])[0].startswith("device: the peak, 1,098 MiB, is above")
    # If the kernel does not count, there is no limit to test.
    unknown = row | {"peak_bytes": None}
    assert memory.judge(unknown, 10)["limit_bytes"] is None
    assert memory.excesses([unknown]) == []
    assert memory.table([unknown]).splitlines()[-1].split() == [
        *("device", "-", "256", "256", "256", "256", "-", "-", "-")
    ]


def test_the_dataset(tmp_path):
    size = {"train": 20, "identities": 6, "query": 8, "gallery": 30}
    whole, few = tmp_path / "whole", tmp_path / "few"
    whole.mkdir()
    few.mkdir()
    memory.write_dataset(str(whole), size)
    dataset = layouts.read("market1501", whole)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (20, 8, 30)
    assert dataset.train.num_identities == 6
    assert not set(dataset.train.pids) & set(dataset.gallery.pids)
    files = [path.read_bytes() for path in whole.glob("*/*.jpg")]
    assert len(set(files)) == len(files) == 58
    with Image.open(next(whole.glob("query/*.jpg"))) as image:
        assert image.size == (64, 128)

    memory.write_few(str(few), str(whole))
    dataset = layouts.read("market1501", few)
    assert (len(dataset.train), len(dataset.query)) == (20, 8)
    assert 0 < len(dataset.gallery) < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--rows=disk"], "unknown 'disk' in --rows"), (["--spare=-1"], "--spare is -1")],
)
def test_mistakes_are_named(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        memory.main([*options, f"--output={tmp_path / 'x.json'}"])
