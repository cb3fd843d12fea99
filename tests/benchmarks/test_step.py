import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

import benchmarks
from benchmarks import networks, step
from reid_jax import models
from reid_jax.data.loaders import open_images
from tests.benchmarks import schema

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = pathlib.Path(__file__).parents[2]
TORCH = "eager" if importlib.util.find_spec("torch") else "none"

SETTINGS = {
    **{"networks": [str], "batch": {int}, "steps": {int}, "burst": {int}, "small": bool},
    **{"dtypes": [str], "loaders": [str], "torch": ([str], str), "profile": bool},
}
TIMED = {"milliseconds_per_step": {"minimum": {float}, "median": {float}}}
TIMED |= {"images_per_second": {float}}
KIND = {"kind": str, "milliseconds": {float}, "share": {float}}
# The columns that only rows of some kind have.
SORTS = {
    "step": {
        **TIMED,
        **{"planned_bytes": {int}, "peak_bytes": ({int}, None)},
        **{"flops": {float}, "compiled_flops": {float}, "bytes_accessed": {float}},
        "roofline": {
            **{"flops_per_second": {float}, "bytes_per_second": {float}},
            **{"bound": str, "share": {float}},
        },
        "speedup_over_torch": ({float}, None),
        "whole_run_minutes": ({float}, None),
        "profile": ({"milliseconds": {float}, "kinds": [KIND]}, None),
    },
    "loop": {**TIMED, "loop_share": {float}, "whole_run_minutes": ({float}, None)},
    "torch": {**TIMED, "peak_bytes": ({int}, None), "whole_run_minutes": ({float}, None)},
    "skipped": {"note": str},
}
NAMES = dict.fromkeys(("network", "library", "form", "dtype"), str)
# In the order of the columns. Columns that a kind lacks are null.
ROWS = tuple(
    {column: (NAMES | own).get(column) for column in step.COLUMNS} for own in SORTS.values()
)

# The script as a user starts it, in an environment without TensorFlow.
PROGRAM = """
import runpy, sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
runpy.run_path("benchmarks/step.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the script; return what it prints and writes, and the folder of its traces."""
    folder = tmp_path_factory.mktemp("results")
    path = folder / "step.json"
    options = ["--small", "--networks=pmm", "--batch=8", "--steps=1", f"--torch={TORCH}"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options, f"--profile={folder}", f"--output={path}"],
        cwd=ROOT,
        # Optimise little: the compiled programs run only a few times.
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout, done.stderr, folder


def row(content, form):
    (found,) = [result for result in content["results"] if result["form"] == form]
    return found


@pytest.mark.slow
def test_json(output):
    content, _, _, folder = output
    schema.check_record(content, SETTINGS, ROWS)
    assert content["command"] == (
        "python benchmarks/step.py --networks=pmm --batch=8 --steps=1 --burst=1 --small "
        f"--dtypes=float32 --loaders=device,memory,disk,tfdata --torch={TORCH} --profile"
    )
    forms = ["step", *(f"loop:{loader}" for loader in step.LOADERS)]
    forms += ["eager"] if TORCH != "none" else []
    assert [result["form"] for result in content["results"]] == forms
    for private in (str(ROOT), str(folder), os.uname().nodename):
        assert private not in json.dumps(content)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("step*.json")))
def test_published_figures_have_the_schema(path):
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROWS)


@pytest.mark.slow
def test_rows(output):
    content, _, _, _ = output
    for result in content["results"]:
        assert (result["network"], result["dtype"]) == ("pmm", "float32")
        assert result["library"] == ("torch" if result["form"] == "eager" else "jax")
        assert result["peak_bytes"] is result["whole_run_minutes"] is None
        if result["form"] != "loop:tfdata":
            assert result["note"] is None
            times = result["milliseconds_per_step"]
            assert times["minimum"] == times["median"]  # one round
            assert result["images_per_second"] == pytest.approx(8 / (times["median"] / 1e3))
    own = row(content, "step")
    rate = own["images_per_second"]
    loop = row(content, "loop:memory")
    assert loop["loop_share"] == pytest.approx(loop["images_per_second"] / rate)
    if TORCH != "none":
        torch_rate = row(content, "eager")["images_per_second"]
        assert own["speedup_over_torch"] == pytest.approx(rate / torch_rate)
    # Both counts are of the same products.
    assert own["compiled_flops"] == pytest.approx(own["flops"], rel=0.2)
    # Parameters and both of Adam's moments are read and written.
    assert own["bytes_accessed"] > own["planned_bytes"]


@pytest.mark.slow
def test_a_loader_that_needs_what_is_missing_is_skipped(output):
    note = row(output[0], "loop:tfdata")["note"]
    assert note.startswith("skipped: ImportError: data.loader='tfdata' needs TensorFlow")


@pytest.mark.slow
def test_time_by_kernel(output):
    content, table, _, folder = output
    profile = row(content, "step")["profile"]
    shares = {kind["kind"]: kind["share"] for kind in profile["kinds"]}
    assert sum(shares.values()) == pytest.approx(1.0)
    for kind in ("convolution, forward", "convolution, weight gradient", "batch norm, backward"):
        assert shares[kind] > 0.01, shares
        assert f"{kind} " in table
    assert shares.get("unknown", 0.0) < 0.1
    assert list((folder / "pmm-float32").rglob("*.xplane.pb"))
    assert "HloModule" in (folder / "pmm-float32.txt").read_text()


@pytest.mark.slow
def test_table_and_progress(output):
    content, table, progress, _ = output
    lines = table.splitlines()[2:]
    for line, result in zip(lines, content["results"], strict=False):
        rate = result["images_per_second"]
        assert line.split()[:5] == [
            *(result["network"], result["library"], result["form"], result["dtype"]),
            "-" if rate is None else f"{rate:.1f}",
        ]
        assert f"pmm, {result['library']}" in progress
    assert lines[2].endswith(f" {row(content, 'loop:memory')['loop_share']:.1%}")
    assert lines[len(content["results"])].startswith("pmm, jax loop:tfdata, float32: skipped")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--networks=resnext", r"unknown 'resnext' in --networks: choose from \['baseline', 'bdb'"),
        ("--dtypes=float32,float16", "unknown 'float16' in --dtypes: choose from"),
        (
            "--loaders=disc",
            r"unknown 'disc' in --loaders: choose from",
        ),
        ("--torch=fast", r"unknown 'fast' in --torch: choose from \['eager', 'compiled'"),
        ("--batch=6", "--batch is 6; it must be two identities or more, 4 images of each"),
        ("--batch=0", "--batch is 0; it must be at least 1"),
        ("--steps=0", "--steps is 0; it must be at least 1"),
        ("--burst=0", "--burst is 0; it must be at least 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(arguments, message, tmp_path, capsys):
    path = tmp_path / "step.json"
    options = [arguments, f"--output={path}"]
    options += [] if "--torch" in arguments else ["--torch=none"]
    with pytest.raises(SystemExit, match=message):
        step.main(options)
    assert not path.exists()
    assert not capsys.readouterr().err


def test_without_pytorch_its_installation_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.torch_networks", raising=False)
    monkeypatch.delattr(benchmarks, "torch_networks", raising=False)
    with pytest.raises(SystemExit, match=r"python -m pip install torch, or pass --torch=none"):
        step.main(["--small", "--torch=eager", f"--output={tmp_path}/step.json"])
    assert not capsys.readouterr().err


def test_flops_are_counted_where_jax_does_not_count():
    """Before it compiles for a GPU, JAX has no costs. The small network has no tiles."""
    config = networks.recipe("baseline", True, 8, "float32")
    lowered, _, _ = networks.prepare(config, jax.devices()[0])
    on_a_gpu = types.SimpleNamespace(cost_analysis=lambda: None)
    assert step.flops_of(on_a_gpu, config) == step.flops_of(lowered, config) > 0


def test_forms_take_turns():
    """In each round, every form makes its steps; the first round is not counted."""
    calls, seconds = [], {"a": iter([50.0, 6.0, 8.0]), "b": iter([40.0, 2.0, 4.0])}

    def run(name, count):
        calls.append((name, count))
        return next(seconds[name])

    runs = {name: functools.partial(run, name) for name in "ab"}
    assert step.take_turns(runs, 2, 2) == {"a": [3.0, 4.0], "b": [1.0, 2.0]}
    assert calls == [("a", 2), ("b", 2)] * 3


def test_the_clock_starts_and_stops_with_the_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(step.time, "perf_counter", lambda: now[0])

    def run(count):
        now[0] += 3.0 * count

    assert step.timed(run)(2) == 6.0


def test_a_turn_of_the_loop_begins_with_steps_that_are_not_counted(monkeypatch):
    """A turn uses all of its own batches, without reading ahead during other turns."""
    now, taken, left = [0.0], [], []
    monkeypatch.setattr(step.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(step, "LEAD", 2)
    monkeypatch.setattr(step, "open_blurs", lambda config, loader, device: (loader, "labels"))
    monkeypatch.setattr(step, "loop_batches", lambda *arguments: iter(range(arguments[3])))

    def run(batches, count):
        taken.append([next(batches) for _ in range(count)])
        now[0] += count
        left.append(batches)

    seconds = step.looper(run, None, "memory", None)
    assert [seconds(3), seconds(1)] == [3.0, 1.0]
    assert taken == [[0, 1], [2, 3, 4], [0, 1], [2]]
    assert all(next(batches, None) is None for batches in left)


def test_steps_are_made_from_the_state_before():
    seen = []

    def add(state, batch):
        seen.append((state, batch))
        return state + batch, {}

    run = step.stepper(add, 1)
    batches = iter([10, 20, 30])
    run(batches, 2)
    run(batches, 1)
    assert seen == [(1, 10), (11, 20), (31, 30)]
    with pytest.raises(StopIteration):  # Fewer steps would look faster.
        run(batches, 1)


@pytest.mark.parametrize(("flops", "bound", "share"), [(8e9, "flops", 0.8), (1e9, "bytes", 0.5)])
def test_roofline(flops, bound, share):
    row = {"dtype": "float32", "flops": flops, "bytes_accessed": 1e9}
    rates = {"float32": 5e9, "bfloat16": 1e99, "copy": 1e9}
    assert step.roofline(row, rates, 2.0) == {
        "flops_per_second": 5e9,
        "bytes_per_second": 1e9,
        "bound": bound,
        "share": pytest.approx(share),
    }


def form(library, form, dtype, rate):
    return {
        **{"network": "pmm", "library": library, "form": form, "dtype": dtype},
        "images_per_second": rate,
    }


def test_our_step_is_compared_with_the_best_of_pytorch_in_its_dtype():
    forms = [
        form("jax", "step", "float32", 30.0),
        form("jax", "loop:memory", "float32", 27.0),
        form("jax", "loop:tfdata", "float32", None),  # skipped
        form("jax", "step", "bfloat16", 80.0),
        form("torch", "eager", "float32", 10.0),
        form("torch", "compiled", "float32", 20.0),
        form("torch", "autocast", "bfloat16", None),  # skipped
    ]
    assert [step.compare(row, forms) for row in forms] == [
        {"speedup_over_torch": 1.5},
        {"loop_share": 0.9},
        {},
        {"speedup_over_torch": None},
        *[{}] * 3,
    ]


def test_a_skipped_form_has_a_row_and_a_note():
    row = form("torch", "compiled", "float32", None) | {"note": "skipped: no compiler"}
    row = step.summarize(row, None, {}, 64, 18800)
    assert tuple(row) == step.COLUMNS
    assert row["milliseconds_per_step"] is row["whole_run_minutes"] is None
    assert step.table([row]).endswith("pmm, torch compiled, float32: skipped: no compiler")


def test_the_whole_run_is_the_papers():
    """400 epochs of 47 steps, from the median of the measured steps, for any device."""
    config = networks.recipe("pmm", small=False, batch=64, dtype="float32")
    settings = {"small": False, "batch": 64}
    assert step.whole_run(config, settings) == 400 * 47
    row = step.summarize(form("torch", "eager", "float32", None), [9.0, 0.3, 0.2], {}, 64, 400 * 47)
    assert row["whole_run_minutes"] == pytest.approx(94.0)
    assert "paper's run take 94 minutes" in step.table([row])
    assert step.whole_run(config, settings | {"batch": 8}) is None
    assert step.whole_run(config, settings | {"small": True}) is None
    assert step.whole_run(networks.recipe("hbfp", False, 64, "float32"), settings) is None


def test_rates_are_of_work_that_is_done():
    """The flops of a product, and the bytes that a copy reads and writes."""
    rates = step.rate_runs(list(models.DTYPES), True, jax.devices()[0])
    assert {name: work for name, (_, work) in rates.items()} == {
        **dict.fromkeys(models.DTYPES, 2 * 256**3),
        "copy": 2 * 2**20,
    }
    for run, _ in rates.values():
        assert run(2) > 0


@pytest.mark.parametrize("loader", step.LOADERS)
def test_the_loop_is_fed_whole_batches(loader):
    config = networks.recipe("pmm", small=True, batch=8, dtype="float32")
    images, labels = step.open_blurs(config, loader, jax.devices()[0])
    assert len(images) == len(labels) == 4 * 8
    batches = list(step.loop_batches(config, images, labels, 5, jax.devices()[0]))
    assert len(batches) == 5
    for batch in batches:
        assert batch["image"].shape == (1, 8, *config.data.image_size, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32
        assert sorted(np.unique_counts(batch["label"]).counts) == [4, 4]
    assert not np.array_equal(batches[0]["image"], batches[4]["image"])


def test_every_loader_is_measured():
    with pytest.raises(ValueError, match="known: ") as failure:
        open_images([], (8, 8), "unknown")
    assert set(str(failure.value).partition("known: ")[2].split(", ")) == set(step.LOADERS)
