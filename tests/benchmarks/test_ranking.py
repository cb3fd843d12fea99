import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import peers, ranking
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking
from reid_jax.evaluation.reranking import k_reciprocal
from tests.benchmarks import schema

ROOT = pathlib.Path(__file__).parents[2]

SETTINGS = {"rows": [str], "methods": [str], "queries": {int}, "repeats": {int}, "seed": int}
SETTINGS |= {"small": bool}
COUNTS = {"task": str, "method": str, "queries": {int}, "gallery": {int}, "dim": {int}}
MEASURED = COUNTS | {
    "seconds": {"minimum": {float}, "median": {float}},
    **{"cpu_seconds": {float}, "peak_bytes": ({int}, None), "mAP": {float}, "rank_1": {float}},
}
PARTS = {"distance_seconds": {float}, "ranking_seconds": {float}}
OVER_PEERS = {"time_over_peers": ({float}, None), "memory_over_peers": ({float}, None)}
# The columns that only rows of some kind have.
SORTS = (
    MEASURED | PARTS | OVER_PEERS | {"growth": ({float}, None)},
    MEASURED | OVER_PEERS,  # re-ranked
    COUNTS | {"note": str},
)
ROWS = tuple({column: own.get(column) for column in ranking.COLUMNS} for own in SORTS)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the script as a user starts it; return what it prints and writes."""
    path = tmp_path_factory.mktemp("results") / "ranking.json"
    options = ["--small", "--rows=market", "--methods=ours,numpy", "--repeats=1"]
    done = subprocess.run(
        [sys.executable, "benchmarks/ranking.py", *options, f"--output={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout, done.stderr, path


def test_json(output):
    content, _, _, path = output
    schema.check_record(content, SETTINGS, ROWS)
    assert content["command"] == (
        "python benchmarks/ranking.py --rows=market --methods=ours,numpy --queries=60 --repeats=1 "
        "--seed=0 --small"
    )
    ours, dense = content["results"]
    assert (ours["task"], ours["method"], dense["method"]) == ("market", "ours", "numpy")
    for row in (ours, dense):
        assert (row["queries"], row["gallery"], row["dim"]) == (60, 300, 32)
        assert row["seconds"]["minimum"] == row["seconds"]["median"]  # one repeat
        parts = row["distance_seconds"] + row["ranking_seconds"]
        assert row["seconds"]["median"] == pytest.approx(parts)
    assert ours["mAP"] == pytest.approx(dense["mAP"], abs=1e-6)
    assert ours["rank_1"] == dense["rank_1"]
    assert ours["time_over_peers"] == pytest.approx(
        ours["ranking_seconds"] / dense["ranking_seconds"]
    )
    for private in (str(ROOT), str(path.parent), os.uname().nodename):
        assert private not in json.dumps(content)


def test_table_and_progress(output):
    content, table, progress, _ = output
    for line, row in zip(table.splitlines()[2:], content["results"], strict=True):
        cells = line.split()
        assert cells[:4] == ["market", row["method"], "60", "300"]
        assert cells[5] == f"{row['seconds']['median']:.2f}"
        assert cells[10] == f"{100 * row['mAP']:.2f}"
        assert f"market, {row['method']}: measuring" in progress


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("ranking*.json")))
def test_published_figures_have_the_schema(path):
    content = json.loads(path.read_text())
    schema.check_record(content, SETTINGS, ROWS)
    text = ranking.table(content["results"])
    assert all(f"{row['task']} " in text and row["method"] in text for row in content["results"])


def settings(**changed):
    return {
        **{"rows": list(ranking.METHODS), "methods": ["ours", "numpy"], "queries": 30},
        **{"repeats": 2, "seed": 0, "small": True, **changed},
    }


def test_every_row(monkeypatch):
    """All tasks in this process: names, sizes, agreement, and the comparisons."""
    monkeypatch.setattr(ranking, "measure_alone", ranking.measure)
    rows = list(ranking.measure_rows(settings()))
    rows = [{**row, **ranking.compare(row, rows)} for row in rows]
    schema.check(rows, [ROWS])
    assert [(row["task"], row["method"], row["queries"], row["gallery"]) for row in rows] == [
        *(("market", method, 60, 300) for method in ("ours", "numpy")),
        *(("distractors", method, 30, 900) for method in ("ours", "numpy")),
        *(("rerank", method, 60, 300) for method in ("ours", "numpy")),
    ]
    maps = {row["task"]: row["mAP"] for row in rows}
    assert maps["distractors"] < maps["market"] < maps["rerank"]
    assert [row["growth"] is not None for row in rows] == [False, False, True, *[False] * 3]


@pytest.mark.parametrize("method", ranking.METHODS["market"])
def test_repeats_are_counted_and_summed_up(method, monkeypatch):
    """Medians, also of parts; the peak is the memory in addition to the descriptors."""
    runs, now = [], [0.0]
    lengths = {0: 9.0, 1: 1.0, 2: 3.0, 3: 8.0}  # the warm-up's first

    def run(query, gallery):
        index = len(runs)
        runs.append((len(query.pids), len(gallery.pids)))
        now[0] += lengths[index]
        return lengths[index] / 4, 0.5, np.array([0.25, 1.0])

    monkeypatch.setitem(ranking.RUNS, ("market", method), run)
    monkeypatch.setattr(ranking.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ranking.time, "process_time", lambda: 2 * now[0])
    monkeypatch.setattr(ranking, "begin_peak", lambda: 1000)
    monkeypatch.setattr(ranking, "memory", lambda path, key: 1500)
    row, cmc = ranking.measure("market", method, settings(repeats=3))
    assert runs == [(16, 64), *[(60, 300)] * 3]
    assert row == {
        "seconds": {"minimum": 1.0, "median": 3.0},
        **{"distance_seconds": 0.75, "ranking_seconds": 2.25, "cpu_seconds": 6.0},
        **{"peak_bytes": 500, "mAP": 0.5, "rank_1": 0.25},
    }
    assert cmc == [0.25, 1.0]


def test_distractors_are_ranked_once_for_evenly_spaced_queries(monkeypatch):
    calls = []

    def run(query, gallery):
        calls.append((query, gallery))
        return 0.0, 0.5, np.ones(1)

    monkeypatch.setitem(ranking.RUNS, ("distractors", "ours"), run)
    ranking.measure("distractors", "ours", settings(seed=4))
    drawn = ranking.synthetic_descriptors(4, queries=60, gallery=300, dim=32, extra=600)
    _, (query, gallery) = calls
    for name in ("features", "pids", "camids"):
        np.testing.assert_array_equal(getattr(query, name), getattr(drawn[0], name)[::2])
        np.testing.assert_array_equal(getattr(gallery, name), getattr(drawn[1], name))


def random_sets(seed):
    """Descriptors without ties, of queries with and without matches, and distractors."""
    rng = np.random.default_rng(seed)

    def draw(count, pids):
        features = rng.normal(size=(count, 5)).astype(np.float32)
        return Descriptors(features, rng.integers(*pids, size=count), rng.integers(3, size=count))

    return draw(12, (1, 6)), draw(50, (0, 5))


ORDERS = {"numpy": peers.numpy_order, "torch": peers.torch_order}


@pytest.mark.parametrize("library", ["numpy", pytest.param("torch", marks=pytest.mark.extras)])
@pytest.mark.parametrize("seed", range(3))
def test_peers_rank_as_we_do(library, seed):
    pytest.importorskip(library)
    query, gallery = random_sets(seed)
    assert 5 in query.pids  # without a match
    distances = peers.distance_matrix(query.features, gallery.features)
    expected = np.square(query.features[:, None].astype(float) - gallery.features[None]).sum(2)
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-4)
    mean_precision, cmc = peers.score(ORDERS[library](distances), query, gallery)
    result = evaluate_ranking(query, gallery)
    assert mean_precision == pytest.approx(result.mAP, abs=1e-9)
    np.testing.assert_allclose(cmc, result.cmc, atol=1e-9)


def test_peers_scores_by_hand():
    """The first of the row is from the query's own camera; the matches are then second and
    third."""
    query = Descriptors(np.zeros((1, 1), np.float32), np.array([7]), np.array([1]))
    pids, camids = np.array([7, 7, 0, 7]), np.array([2, 1, 1, 3])
    gallery = Descriptors(np.zeros((4, 1), np.float32), pids, camids)
    mean_precision, cmc = peers.score(np.array([[1, 2, 0, 3]]), query, gallery, max_rank=3)
    assert mean_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    np.testing.assert_array_equal(cmc, [0, 1, 1])


def reranked(query, gallery, k1, k2, weight):
    """The paper's formulas over sets, in float64."""
    points = np.concatenate([query, gallery]).astype(np.float64)
    squared = np.square(points[:, None] - points[None]).sum(2)
    scaled = squared / squared.max(axis=1, keepdims=True)
    ranked = scaled.argsort(axis=1)

    def mutual(i, k):
        return {j for j in ranked[i, : k + 1] if i in ranked[j, : k + 1]}

    encoded = np.zeros_like(scaled)
    for i in range(len(points)):
        start = members = mutual(i, k1)
        for j in start:
            more = mutual(j, k1 // 2)
            members = members | more if 3 * len(more & start) > 2 * len(more) else members
        members = sorted(members)
        encoded[i, members] = np.exp(-scaled[i, members])
    encoded /= encoded.sum(axis=1, keepdims=True)
    encoded = np.stack([encoded[row[:k2]].mean(axis=0) for row in ranked])
    first = len(query)
    pairs = encoded[:first, None], encoded[None, first:]
    jaccard = 1 - np.minimum(*pairs).sum(2) / np.maximum(*pairs).sum(2)
    return (1 - weight) * jaccard + weight * scaled[:first, first:]


@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (6, 1, 0.3), (4, 3, 0.1), (8, 4, 1.0)]
)
def test_peers_rerank_by_the_papers_formulas_and_as_we_do(k1, k2, weight):
    query, gallery = ranking.synthetic_descriptors(3, queries=12, gallery=60, dim=5, extra=0)
    final = peers.rerank(query.features, gallery.features, k1, k2, weight)
    expected = reranked(query.features, gallery.features, k1, k2, weight)
    np.testing.assert_allclose(final, expected, atol=1e-5)
    rescore = k_reciprocal(query, gallery, k1=k1, k2=k2, weight=weight)
    ours = evaluate_ranking(query, gallery, rescore=rescore)
    mean_precision, _ = peers.score(peers.numpy_order(final), query, gallery)
    assert ours.mAP == pytest.approx(mean_precision, abs=1e-6)


def test_descriptors_have_market_1501s_statistics():
    size = ranking.SIZE | {"dim": 2, "extra": 1000}
    query, gallery = ranking.synthetic_descriptors(0, **size)
    assert (query.features.shape, gallery.features.shape) == ((3368, 2), (16913, 2))
    assert query.features.dtype == gallery.features.dtype == np.float32
    assert len(np.unique(query.pids)) == 750
    assert set(query.pids) == set(gallery.pids) - {0}
    assert len({*zip(query.pids, query.camids, strict=True)}) == 3368
    assert set(query.camids) == set(gallery.camids) == set(range(6))
    assert np.all(np.unique_counts(query.pids).counts >= 2)
    assert np.sum(gallery.pids == 0) == 2798 + 1000
    matches = (query.pids[:, None] == gallery.pids) & (query.camids[:, None] != gallery.camids)
    assert matches.any(axis=1).all()
    assert 14 < matches.sum(axis=1).mean() < 15


def test_descriptors_depend_on_the_seed_alone():
    def draw(seed, extra):
        return ranking.synthetic_descriptors(seed, queries=13, gallery=1500, dim=3, extra=extra)

    (query, gallery), (same_query, longer) = draw(0, 0), draw(0, 100)
    for name in ("features", "pids", "camids"):
        np.testing.assert_array_equal(getattr(query, name), getattr(same_query, name))
        np.testing.assert_array_equal(getattr(gallery, name), getattr(longer, name)[:1500])
    for other, own in zip(draw(1, 0), (query, gallery), strict=True):
        assert not np.isin(other.features, own.features).any()
    with pytest.raises(ValueError, match="there must be at least 4 queries, and as many"):
        ranking.synthetic_descriptors(0, queries=13, gallery=15, dim=3, extra=9)


def test_peak_is_what_is_held_beside_what_was():
    if ranking.begin_peak() is None:
        pytest.skip("the kernel does not count")
    assert ranking.end_peak(None) is ranking.end_peak(2**60) is None
    before = np.ones(2**24)  # 128 MiB, freed before the count, so they do not count
    del before
    held = ranking.begin_peak()
    kept = np.ones(2**22)
    taken = ranking.end_peak(held)
    assert 0.9 * kept.nbytes < taken < 1.5 * kept.nbytes


def test_memory_where_nobody_counts(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t   12 kB\n")
    assert ranking.memory(tmp_path / "status", "VmRSS") == 12 * 1024
    assert ranking.memory(tmp_path / "status", "VmHWM") is None
    assert ranking.memory(tmp_path / "none", "VmRSS") is None


def test_time_of_distances_is_that_of_blocks(monkeypatch):
    """Work with a block is not timed, and afterwards the timer is removed."""
    now = [0.0]

    def blocks(count):
        for i in range(count):
            now[0] += 1.0
            yield i

    monkeypatch.setattr(ranking.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ranking.ranking, "score_blocks", blocks)
    with ranking.timed_blocks() as seconds:
        for _ in ranking.ranking.score_blocks(3):
            now[0] += 10.0
    assert seconds == [1.0] * 3
    assert ranking.ranking.score_blocks is blocks


def row(task, method, seconds, peak=100, **changed):
    return {
        **dict.fromkeys(ranking.COLUMNS),
        **{"task": task, "method": method, "queries": 2, "gallery": 10, "peak_bytes": peak},
        "seconds": {"minimum": seconds, "median": seconds},
        "ranking_seconds": None if task == "rerank" else seconds / 2,
        **changed,
    }


def test_ours_is_compared_with_the_best_of_the_peers():
    rows = [
        row("market", "ours", 4.0, 30),
        row("market", "numpy", 9.0, 100, ranking_seconds=1.0),
        row("market", "torch", 5.0, 60),
        row("distractors", "ours", 24.0, gallery=30),
        row("distractors", "numpy", 1.0) | {"seconds": None},  # skipped
        row("rerank", "ours", 1.0, None),
        row("rerank", "numpy", 4.0),
    ]
    tiny = [row("rerank", "ours", 1.0), row("rerank", "numpy", 4.0, None)]
    assert ranking.compare(tiny[0], tiny) == {"time_over_peers": 0.25}
    assert [ranking.compare(one, rows) for one in rows] == [
        {"time_over_peers": 2.0, "memory_over_peers": 0.5},
        *[{}] * 2,
        {"growth": 2.0},
        {},
        {"time_over_peers": 0.25},
        {},
    ]
    assert ranking.compare(rows[0], rows[:1]) == ranking.compare(rows[3], rows[3:4]) == {}


def test_methods_that_differ_are_an_error():
    scores = {"ours": (0.5, [0.25, 1.0]), "numpy": (0.5 + 1e-7, [0.2503, 1.0])}
    ranking.check_agreement("market", scores)
    ranking.check_agreement("rerank", scores | {"torch": (0.50005, [0.25, 1.0])})
    with pytest.raises(ValueError, match=r"market: torch and ours differ by 5\.0e-01 in CMC"):
        ranking.check_agreement("market", scores | {"torch": (0.5, [0.25, 0.5])})
    with pytest.raises(ValueError, match=r"market: torch and ours differ by 5\.0e-05 in mAP"):
        ranking.check_agreement("market", scores | {"torch": (0.49995, [0.25, 1.0])})


def test_what_cannot_run_has_a_row_that_says_why(monkeypatch):
    monkeypatch.setattr(ranking, "memory", lambda path, key: 10 * 10**9)
    monkeypatch.setattr(ranking.importlib.util, "find_spec", lambda name: None)
    full = settings(small=False, queries=3368, rows=["market", "distractors", "rerank"])
    notes = {
        (task, method): ranking.why_not(task, method, ranking.task_size(task, full))
        for task, methods in ranking.METHODS.items()
        for method in methods
    }
    assert {key: note for key, note in notes.items() if note is not None} == {
        ("market", "torch"): "skipped: PyTorch is not installed",
        # 12 bytes a pair, and the descriptors.
        ("distractors", "numpy"): "skipped: needs 24.0 GB, 10.0 GB are available",
    }
    assert ranking.needed_bytes("rerank", ranking.task_size("rerank", full)) == (
        20 * 19281**2 + 4 * 19281 * 1536
    )
    monkeypatch.setattr(ranking, "memory", lambda path, key: 0)
    (skipped,) = ranking.measure_rows(settings(rows=["rerank"], methods=["numpy"]))
    schema.check(skipped, ROWS)
    assert "rerank, numpy: skipped: needs 0.0 GB" in ranking.table([skipped])


def test_a_process_that_is_ended_is_named(monkeypatch):
    class Pool:
        def __init__(self, *arguments):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            pass

        def submit(self, *arguments):
            raise ranking.BrokenProcessPool

    monkeypatch.setattr(ranking.concurrent.futures, "ProcessPoolExecutor", Pool)
    with pytest.raises(OSError, match="the process of rerank, numpy was killed: the system may be"):
        ranking.measure_alone("rerank", "numpy", settings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rows=market,msmt", r"unknown 'msmt' in --rows: choose from \['market', 'distractors'"),
        ("--methods=theirs", r"unknown 'theirs' in --methods: choose from \['ours', 'numpy'"),
        ("--methods=torch --rows=rerank", "no row: --methods=torch has none of --rows=rerank"),
        ("--queries=3", "--queries is 3; it must be from 4 to 60"),
        ("--queries=61", "--queries is 61; it must be from 4 to 60"),
        ("--repeats=0", "--repeats is 0; it must be at least 1"),
        ("--seed=-1", "--seed is -1; it must be at least 0"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(arguments, message, tmp_path, capsys):
    path = tmp_path / "ranking.json"
    with pytest.raises(SystemExit, match=message):
        ranking.main(["--small", *arguments.split(), f"--output={path}"])
    assert not path.exists()
    assert not capsys.readouterr().err
