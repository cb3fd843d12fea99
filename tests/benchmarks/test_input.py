import contextlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import input, networks
from tests.benchmarks import schema

ROOT = pathlib.Path(__file__).parents[2]

SETTINGS = {
    **{"loaders": [str], "pil": [str], "files": {int}, "batch": {int}, "rounds": {int}},
    **{"burst": {int}, "workers": {int}, "small": bool},
}
TIMED = {"milliseconds_per_image": {"minimum": {float}, "median": {float}}}
TIMED |= {"images_per_second": {float}}
# The columns that only rows of some kind have.
SORTS = (
    {
        **TIMED,
        **{"speedup_over_pil": ({float}, None), "seconds_to_open": {float}},
        **{"opened_bytes": (int, None), "grown_bytes": (int, None)},
    },
    TIMED,
    {"note": str},
)
FILES = {"height": {int}, "width": {int}, "bytes_per_file": {float}, "loader": str, "work": str}
# In the order of the columns. Columns that a kind lacks are null.
ROWS = tuple({column: (FILES | own).get(column) for column in input.COLUMNS} for own in SORTS)

# The script as a user starts it. Workers import the main module and must not start the script.
PROGRAM = 'import runpy; runpy.run_path("benchmarks/input.py", run_name="__main__")'


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the script; return what it prints and writes."""
    path = tmp_path_factory.mktemp("results") / "input.json"
    options = ["--small", "--files=4", "--batch=2", "--rounds=1", "--burst=2", "--workers=1"]
    options += ["--pil=processes"]  # PyTorch takes seconds to import, twice.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options, f"--output={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout, done.stderr


@pytest.mark.slow
def test_json(output):
    content, _, _ = output
    schema.check_record(content, SETTINGS, ROWS)
    assert content["versions"]["pillow"] == importlib.metadata.version("pillow")
    assert content["command"] == (
        "python benchmarks/input.py --loaders=tfdata,memory,disk,encoded --pil=processes --files=4 "
        "--batch=2 --rounds=1 --burst=2 --workers=1 --small"
    )
    rows = [
        *(("tfdata", "delivered"), ("tfdata", "augmented")),
        *(("memory", "delivered"), ("memory", "augmented")),
        *(("disk", "delivered"), ("disk", "augmented")),
        *(("encoded", "delivered"), ("encoded", "augmented"), ("none", "augmented")),
        *(("processes", "augmented"), ("processes", "decoded")),
    ]
    assert [
        (row["height"], row["width"], row["loader"], row["work"]) for row in content["results"]
    ] == [(*shape, *row) for shape in ((128, 64), (512, 256)) for row in rows]
    for private in (str(ROOT), os.uname().nodename):
        assert private not in json.dumps(content)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("input*.json")))
def test_published_figures_have_the_schema(path):
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROWS)


@pytest.mark.slow
def test_rows(output):
    content, _, _ = output
    for row in content["results"]:
        times = row["milliseconds_per_image"]
        assert times["minimum"] == times["median"]  # one round
        assert row["images_per_second"] == pytest.approx(1e3 / times["median"])
        beside = [other for other in content["results"] if other["height"] == row["height"]]
        assert row["speedup_over_pil"] == input.speedup(row, beside)
    sizes = {row["height"]: row["bytes_per_file"] for row in content["results"]}
    assert sizes[512] > 4 * sizes[128]


@pytest.mark.slow
def test_table_and_progress(output):
    content, table, progress = output
    lines = table.splitlines()[2:]
    for line, row in zip(lines, content["results"], strict=False):
        rate = row["images_per_second"]
        assert line.split()[0] == f"{row['height']}x{row['width']}"
        assert line.split()[2:5] == [
            *(row["loader"], row["work"], "-" if rate is None else f"{rate:.0f}")
        ]
    for what in ("writing 4 files", "processes: starting 1 workers", "tfdata: opening"):
        assert what in progress


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--loaders=disc",
            r"unknown 'disc' in --loaders: choose from \['tfdata', ",
        ),
        ("--pil=threads", r"unknown 'threads' in --pil: choose from \['processes', 'dataloader'\]"),
        ("--workers=0", "--workers is 0; it must be at least 1"),
        ("--files=63", "--files is 63; it must be at least --batch, 64"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(arguments, message, tmp_path, capsys):
    path = tmp_path / "input.json"
    with pytest.raises(SystemExit, match=message):
        input.main([arguments, f"--output={path}"])
    assert not path.exists()
    assert not capsys.readouterr().err


def row(loader, rate, work="augmented"):
    note = "skipped: not installed" if rate is None else None
    return {"loader": loader, "work": work, "images_per_second": rate, "note": note}


def test_ours_with_augmentation_is_compared_with_the_fastest_of_pillows():
    rows = [
        row("tfdata", 60.0, "delivered"),
        row("tfdata", 30.0),
        row("memory", None),
        row("none", 500.0),
        row("processes", 20.0),
        row("processes", 40.0, "decoded"),
        row("dataloader", 10.0),
    ]
    assert [input.speedup(one, rows) for one in rows] == [None, 1.5, *[None] * 5]
    assert input.speedup(row("memory", 80.0), [*rows, row("dataloader", 25.0)]) == 3.2
    assert input.speedup(rows[1], [*rows[:4], row("dataloader", None)]) is None


def test_what_is_missing_has_a_row_and_a_note(monkeypatch):
    for name in ("torch", "torch.utils", "torch.utils.data", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tfdata", "encoded"):
        monkeypatch.delitem(sys.modules, f"reid_jax.data.{name}", raising=False)
    config = networks.recipe("pmm", small=True, batch=8, dtype="float32")
    settings = {"loaders": ["tfdata"], "pil": ["dataloader"], "batch": 2, "workers": 1}
    found = [*input.our_streams([], None, config, settings)][:2]
    with contextlib.ExitStack() as stack:
        found += input.start_workers([], config, settings, stack)
    assert [(one["loader"], stream) for one, stream in found] == [
        *[("tfdata", None)] * 2,
        ("dataloader", None),
    ]
    rows = [
        input.summarize({"height": 8, "width": 4, "bytes_per_file": 9.0} | one, None, 2)
        for one, _ in found
    ]
    schema.check(rows, [ROWS])
    assert "8x4, tfdata delivered: skipped: data.loader='tfdata' needs" in input.table(rows)


def test_a_turn_counts_neither_what_was_read_ahead_nor_what_will_be(monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(input.step.time, "perf_counter", lambda: now[0])

    def stream(indices):
        for index in indices:
            now[0] += 1.0
            asked.append(index)
            yield index

    seconds = input.timed_stream(stream, iter(range(100)), 2)
    assert [seconds(3), seconds(1)] == [3.0, 1.0]
    assert asked == list(range(12))


def test_batches_are_epochs_in_random_orders():
    batches = input.index_batches(10, 7, 3)
    epochs = [np.concatenate([next(batches), next(batches)]) for _ in range(20)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert set(np.concatenate(epochs)) == set(range(10, 17))
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_a_batch_is_asked_for_while_the_one_before_is_augmented():
    asked = []

    def stream(order):
        for index in order:
            asked.append(index)
            yield 10 * index

    def program(key, batch):
        return batch, int(jax.random.key_data(key).sum())

    batches = iter(input.augmented(stream, program)([3, 1, 2]))
    batch, first = next(batches)
    assert (batch, asked) == (30, [3, 1])
    (second, third) = batches
    assert (second[0], third[0]) == (10, 20)
    assert len({first, second[1], third[1]}) == 3


def test_files_have_the_size_asked_for_and_the_same_bytes_again(tmp_path):
    people = input.draw_people(2)
    paths = input.write_files(people, 3, (128, 64), str(tmp_path))
    before = [pathlib.Path(path).read_bytes() for path in paths]
    assert input.write_files(people, 3, (128, 64), str(tmp_path)) == paths
    assert [pathlib.Path(path).read_bytes() for path in paths] == before
    for path, person in zip(paths, [*people, people[0]], strict=True):
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (64, 128))
            assert abs(np.asarray(image, float) - np.asarray(person)).mean() < 8
    assert len(set(before)) == 3
