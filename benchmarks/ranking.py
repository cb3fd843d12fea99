"""The cost of ranking: `python benchmarks/ranking.py`, from the repository root.

Measures seconds and memory of our ranking (`reid_jax.evaluation`) and of other programs' methods
(`benchmarks/peers.py`) over the same synthetic descriptors, in three tasks. Prints a table and
writes JSON.

- `market`: mAP and CMC of 3,368 queries in a gallery of 15,913 images, 1,536 dimensions, as
  Market-1501 has without its junk.
- `distractors`: the same with 500,000 more gallery images, once instead of `--repeats` times.
- `rerank`: `market` with k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3), once.

The methods are `ours`; `numpy`, with dense matrices and whole rows sorted; and in `market` also
`torch`, the same with PyTorch's sorting on all cores. If a method cannot run because PyTorch or
memory is missing, its row states the reason. All methods of a task must give the same mAP and CMC.
With `--queries`, `distractors` uses fewer, evenly spaced queries.

*The descriptors* are drawn: Gaussian identities, of which 750 are searched for, each seen by two to
six cameras, with a shift for each camera and heavy-tailed deviations of the images. Each identity
and camera has one query and at least one gallery image; 13,115 gallery images show the 750
identities, the others are distractors (pid 0).

*Each row is measured in a separate process*, one at a time, with the allocator settings of
`eval.py`. The process first runs its method over a few images, so that compiling and starting
threads do not count. Images and networks are not involved: descriptors are in the host's memory.

*Seconds* are from descriptors to mAP and CMC: minimum and median of the repeats. *Distances* are
the part of the seconds for the matrix products, with everything needed to make distances from them:
for other programs the whole matrix, for ours the blocks of scores, both until they are in the
host's memory. *Ranking* is the rest. Re-ranking has no such parts. *CPU* seconds are those of all
the process's threads; they depend less on other programs on the machine. All three are medians.

*Peak* is the most memory that the process held at once during all repeats, as the kernel counts its
resident pages (VmHWM, reset before, under Linux), minus what it held at their start, with the
descriptors drawn and the freed memory of the warm-up returned. It does not include memory of an
accelerator. It is null if the kernel does not count, or if no growth was measured.

*Time* and *memory* `/ peers` are ours divided by the least of the other methods in the task. Time
is that of ranking only; in `rerank` it is the total. *Growth* is ours in `distractors`: its seconds
per pair of query and gallery image, divided by those in `market`; 1 means that the cost grows
linearly.
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import operator
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

from benchmarks import output, peers
from reid_jax.evaluation import ranking
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.reranking import k_reciprocal
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.devices import choose_devices
from reid_jax.runtime.messages import clear_errors

# Market-1501's test split, and the sizes that `--small` measures.
SIZE = {"queries": 3368, "gallery": 15913, "dim": 1536, "extra": 500_000}
SMALL = {"queries": 60, "gallery": 300, "dim": 32, "extra": 600}
WARM_UP = {"queries": 16, "gallery": 64, "extra": 0}
IDENTITIES, CAMERAS = 750, 6
LABELLED = 13115  # gallery images of the identities
# Sizes of the cameras' shifts and of the images' deviations, relative to those of identities; the
# deviations' degrees of freedom; the dimension at which standard deviations have halved. With these
# values, mAP and Rank-1 are near those of trained networks.
SHIFT, NOISE, TAIL, DECAY = 0.4, 0.6, 3, 16

METHODS = {
    "market": ("ours", "numpy", "torch"),
    "distractors": ("ours", "numpy"),
    "rerank": ("ours", "numpy"),
}
# The largest difference between methods in mAP and in any value of the CMC curve, in which a query
# is 0.0003: other programs compute in float32, in which a few close images swap.
TOLERANCE = {"market": (1e-6, 1e-3), "distractors": (1e-5, 1e-3), "rerank": (1e-4, 1e-3)}

COLUMNS = (
    *("task", "method", "note", "queries", "gallery", "dim"),
    *("seconds", "distance_seconds", "ranking_seconds", "cpu_seconds", "peak_bytes"),
    *("mAP", "rank_1"),
    *("time_over_peers", "memory_over_peers", "growth"),
)


def synthetic_descriptors(
    seed: int, queries: int, gallery: int, dim: int, extra: int
) -> tuple[Descriptors, Descriptors]:
    """Draw descriptors with Market-1501's statistics; see the top of the file.

    Args:
        seed: seed of all random numbers.
        queries: Q, 4.5 per identity, each from another camera.
        gallery: G, of which 82 % show an identity that is searched for.
        dim: D.
        extra: E, further distractors. The other descriptors do not depend on it.

    Returns:
        Descriptors of Q and of G + E images, drawn in place.

    Raises:
        ValueError: fewer than 4 queries, or a gallery without an image for each of them.
    """
    labelled = gallery * LABELLED // SIZE["gallery"]
    if queries < 4 or labelled < queries:
        raise ValueError(
            f"{queries} queries and {gallery} gallery images: there must be at least 4 queries, "
            f"and as many gallery images of their identities, which are {labelled}"
        )
    rng = np.random.default_rng((seed, 0))  # The numbers of `extra` are drawn last.
    identities = max(2, -(-queries * IDENTITIES // SIZE["queries"]))
    # All identities have two cameras; some draws add more.
    seen = rng.permuted(np.tile(np.arange(CAMERAS), (identities, 1)), axis=1)
    seen = seen + CAMERAS * np.arange(identities)[:, None]
    more = rng.permutation(seen[:, 2:].ravel())[: queries - 2 * identities]
    pairs = np.sort(np.concatenate([seen[:, :2].ravel(), more]))

    # The gallery has an image of every query's identity and camera, so each query has matches.
    shown = rng.permutation(np.concatenate([pairs, rng.choice(pairs, labelled - queries)]))
    others = gallery - labelled + extra
    centres = rng.standard_normal((identities, dim), np.float32)
    shifts = SHIFT * rng.standard_normal((CAMERAS, dim), np.float32)
    pids = np.concatenate([shown // CAMERAS + 1, np.zeros(others, np.int64)])
    camids = np.concatenate([shown % CAMERAS, rng.integers(CAMERAS, size=others)])
    query = _draw((seed, 1), pairs // CAMERAS + 1, pairs % CAMERAS, centres, shifts)
    return query, _draw((seed, 2), pids, camids, centres, shifts)


def _draw(
    seed: tuple[int, int],
    pids: np.ndarray,
    camids: np.ndarray,
    centres: np.ndarray,
    shifts: np.ndarray,
) -> Descriptors:
    """Draw one descriptor per image, around its identity's centre. Each distractor has its own
    centre.

    An image deviates by a multivariate t distribution, so that some images are poor in all of their
    dimensions. The standard deviations decay over the dimensions, as in trained networks.
    """
    dim = centres.shape[1]
    spread = NOISE / np.sqrt(np.random.default_rng((*seed, 0)).chisquare(TAIL, len(pids)) / TAIL)
    spread = np.where(pids > 0, spread, np.sqrt(1 + spread**2)).astype(np.float32)
    share = (1 / (1 + np.arange(dim) / DECAY)).astype(np.float32)
    features = np.empty((len(pids), dim), np.float32)
    rng = np.random.default_rng((*seed, 1))
    for start in range(0, len(pids), 1024):
        rows = slice(start, start + 1024)
        part, known = features[rows], pids[rows] > 0
        rng.standard_normal(out=part, dtype=np.float32)
        part *= spread[rows, None]
        part[known] += centres[pids[rows][known] - 1]
        part += shifts[camids[rows]]
        part *= share[None]
    return Descriptors(features, pids, camids)


# The result of a task: seconds of distances, mAP and CMC.
Outcome = tuple[float | None, float, np.ndarray]


def run_ours(query: Descriptors, gallery: Descriptors) -> Outcome:
    """Rank and score with `evaluate_ranking`."""
    with timed_blocks() as seconds:
        result = ranking.evaluate_ranking(query, gallery)
    return sum(seconds), result.mAP, result.cmc


@contextlib.contextmanager
def timed_blocks() -> Iterator[list[float]]:
    """Record the seconds that ranking waits for each block of scores."""
    score_blocks, seconds = ranking.score_blocks, []

    def timed(*arguments):
        start = time.perf_counter()
        for block in score_blocks(*arguments):
            seconds.append(time.perf_counter() - start)
            yield block
            start = time.perf_counter()

    ranking.score_blocks = timed
    try:
        yield seconds
    finally:
        ranking.score_blocks = score_blocks


def run_ours_reranked(query: Descriptors, gallery: Descriptors) -> Outcome:
    """`run_ours` with re-ranking."""
    rescore = k_reciprocal(query, gallery, k1=20, k2=6, weight=0.3)
    result = ranking.evaluate_ranking(query, gallery, rescore=rescore)
    return None, result.mAP, result.cmc


def run_dense(order: Callable, query: Descriptors, gallery: Descriptors) -> Outcome:
    """The method of other programs, with rows sorted by `order`."""
    start = time.perf_counter()
    distances = peers.distance_matrix(query.features, gallery.features)
    seconds = time.perf_counter() - start
    return seconds, *peers.score(order(distances), query, gallery)


def run_dense_reranked(query: Descriptors, gallery: Descriptors) -> Outcome:
    """The method of other programs, with re-ranking."""
    distances = peers.rerank(query.features, gallery.features)
    return None, *peers.score(peers.numpy_order(distances), query, gallery)


RUNS = {
    ("market", "ours"): run_ours,
    ("market", "numpy"): functools.partial(run_dense, peers.numpy_order),
    ("market", "torch"): functools.partial(run_dense, peers.torch_order),
    ("distractors", "ours"): run_ours,
    ("distractors", "numpy"): functools.partial(run_dense, peers.numpy_order),
    ("rerank", "ours"): run_ours_reranked,
    ("rerank", "numpy"): run_dense_reranked,
}


def drawn_size(task: str, settings: dict) -> dict[str, int]:
    """Arguments of `synthetic_descriptors` for a task."""
    size = SMALL if settings["small"] else SIZE
    return size if task == "distractors" else size | {"extra": 0}


def task_size(task: str, settings: dict) -> dict[str, int]:
    """The task's `queries` and `gallery` images, and their `dim`."""
    size = drawn_size(task, settings)
    queries = settings["queries"] if task == "distractors" else size["queries"]
    images = size["gallery"] + size["extra"]
    return {"queries": queries, "gallery": images, "dim": size["dim"]}


def needed_bytes(task: str, size: dict[str, int]) -> int:
    """A lower bound of the memory of the other programs' method, including descriptors."""
    queries, images = size["queries"], size["queries"] + size["gallery"]
    # Distances and sorted indices of all pairs; for re-ranking see `peers.rerank`.
    dense = 20 * images**2 if task == "rerank" else 12 * queries * size["gallery"]
    return dense + 4 * size["dim"] * images


def why_not(task: str, method: str, size: dict[str, int]) -> str | None:
    """The reason why a method cannot run here, or None."""
    if method == "torch" and importlib.util.find_spec("torch") is None:
        return "skipped: PyTorch is not installed"
    needed, available = needed_bytes(task, size), memory("/proc/meminfo", "MemAvailable")
    # Keep a tenth in reserve, so that the system does not kill the process or another one.
    if method != "ours" and available is not None and 1.1 * needed > available:
        return f"skipped: needs {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available"
    return None


def memory(path: str, key: str) -> int | None:
    """Bytes that the kernel reports for `key`, or None if there is no such file or line."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return 1024 * int(value.split()[0])
    return None


def begin_peak() -> int | None:
    """Reset the peak, and return the memory that the process holds; None if it is not counted."""
    with contextlib.suppress(OSError, AttributeError):
        # The method may reuse freed memory, which would not count.
        ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return memory("/proc/self/status", "VmRSS")
    return None


def end_peak(held: int | None) -> int | None:
    """Return how far memory rose above the `held` bytes, or None if it is unknown."""
    peak = memory("/proc/self/status", "VmHWM")
    # Counts are inexact by some pages, which tiny sizes may not exceed.
    return None if held is None or peak is None or peak <= held else peak - held


def measure(task: str, method: str, settings: dict) -> tuple[dict, list[float]]:
    """Run a method as often as the settings request, in this process.

    Returns:
        Its row of `COLUMNS`, except the columns that need other rows, and its CMC.
    """
    run, size = RUNS[task, method], drawn_size(task, settings)
    run(*synthetic_descriptors(settings["seed"], **(size | WARM_UP)))
    query, gallery = synthetic_descriptors(settings["seed"], **size)
    count = task_size(task, settings)["queries"]
    kept = np.arange(count) * len(query.pids) // count
    query = Descriptors(query.features[kept], query.pids[kept], query.camids[kept])
    held = begin_peak()
    seconds, distance_seconds, cpu_seconds = [], [], []
    for _ in range(settings["repeats"] if task == "market" else 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        distances, mean_precision, cmc = run(query, gallery)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        distance_seconds.append(distances)
    peak_bytes = end_peak(held)
    row = {
        "seconds": {"minimum": min(seconds), "median": statistics.median(seconds)},
        "cpu_seconds": statistics.median(cpu_seconds),
        "peak_bytes": peak_bytes,
        "mAP": mean_precision,
        "rank_1": float(cmc[0]),
    }
    if distances is not None:
        row["distance_seconds"] = statistics.median(distance_seconds)
        row["ranking_seconds"] = statistics.median(map(operator.sub, seconds, distance_seconds))
    return row, cmc.tolist()


def measure_alone(task: str, method: str, settings: dict) -> tuple[dict, list[float]]:
    """Run `measure` in a separate process, which keeps freed memory as eval.py does."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, keep_freed_memory) as pool:
        try:
            return pool.submit(measure, task, method, settings).result()
        except BrokenProcessPool as error:
            raise OSError(
                f"the process of {task}, {method} was killed: the system may be short of memory; "
                "omit the row with --rows or --methods"
            ) from error


def check_agreement(task: str, scores: dict[str, tuple[float, list[float]]]) -> None:
    """Raise ValueError if methods give different mAP or CMC: they did not do the same."""
    other, (expected, expected_cmc) = next(iter(scores.items()))
    for method, (mean_precision, cmc) in scores.items():
        apart = abs(mean_precision - expected), np.abs(np.subtract(cmc, expected_cmc)).max()
        for what, difference, most in zip(("mAP", "CMC"), apart, TOLERANCE[task], strict=True):
            if difference > most:
                raise ValueError(
                    f"{task}: {method} and {other} differ by {difference:.1e} in {what}"
                )


def measure_rows(settings: dict) -> Iterator[dict]:
    """Yield rows of `COLUMNS`, one after the other. Columns that need other rows are null.

    Raises:
        ValueError: methods disagree.
        OSError: a process was killed.
    """
    for task in settings["rows"]:
        size, scores = task_size(task, settings), {}
        for method in (method for method in METHODS[task] if method in settings["methods"]):
            note = why_not(task, method, size)
            output.say(f"{task}, {method}: {note or 'measuring'}")
            row = dict.fromkeys(COLUMNS) | {"task": task, "method": method, "note": note, **size}
            if note is None:
                measured, cmc = measure_alone(task, method, settings)
                row |= measured
                scores[method] = measured["mAP"], cmc
                check_agreement(task, scores)
            yield row


def compare(row: dict, rows: list[dict]) -> dict:
    """Compute the three columns of a row that need the other rows."""
    if row["method"] != "ours" or row["seconds"] is None:
        return {}

    def seconds(row):
        return row["seconds"]["median"] if row["task"] == "rerank" else row["ranking_seconds"]

    def seconds_of_a_pair(row):
        return row["seconds"]["median"] / (row["queries"] * row["gallery"])

    ran = [other for other in rows if other["seconds"] is not None]
    rivals = [o for o in ran if o["task"] == row["task"] and o["method"] != "ours"]
    found = {}
    if rivals:
        found["time_over_peers"] = seconds(row) / min(map(seconds, rivals))
        peaks = [other["peak_bytes"] for other in rivals]
        if None not in (row["peak_bytes"], *peaks):
            found["memory_over_peers"] = row["peak_bytes"] / min(peaks)
    if row["task"] == "distractors":
        for other in ran:
            if (other["task"], other["method"]) == ("market", "ours"):
                found["growth"] = seconds_of_a_pair(row) / seconds_of_a_pair(other)
    return found


def table(results: list[dict]) -> str:
    """Format the results as text: one row per method, then notes."""

    def cell(value, scale=1.0, form=".2f"):
        return "-" if value is None else format(value / scale, form)

    header = (
        *("task", "method", "queries", "gallery", "minimum", "median", "distances", "ranking"),
        *("CPU", "peak", "mAP", "Rank-1", "time", "memory", "growth"),
    )
    units = ("", "", "", "", "s", "s", "s", "s", "s", "MiB", "%", "%", "/ peers", "/ peers", "")
    rows, notes = [units], []
    for result in results:
        times = result["seconds"] or {}
        rows.append(
            (
                *(result["task"], result["method"]),
                *(str(result["queries"]), str(result["gallery"])),
                *(cell(times.get(which)) for which in ("minimum", "median")),
                *(cell(result[f"{which}_seconds"]) for which in ("distance", "ranking", "cpu")),
                cell(result["peak_bytes"], 2**20, ".0f"),
                *(cell(result[which], 0.01) for which in ("mAP", "rank_1")),
                *(cell(result[which]) for which in COLUMNS[-3:]),
            )
        )
        if result["note"]:
            notes.append(f"{result['task']}, {result['method']}: {result['note']}")
    return "\n".join([output.table(header, rows), *notes])


def choose_settings(options: argparse.Namespace) -> dict:
    """Every option that changes what is measured.

    Raises:
        ValueError: an option has a value that is not allowed.
    """

    most = (SMALL if options.small else SIZE)["queries"]
    settings = {
        "rows": output.words(options, "rows", METHODS),
        "methods": output.words(options, "methods", METHODS["market"]),
        "queries": most if options.queries is None else options.queries,
        "repeats": options.repeats,
        "seed": options.seed,
        "small": options.small,
    }
    if not 4 <= settings["queries"] <= most:
        raise ValueError(f"--queries is {settings['queries']}; it must be from 4 to {most}")
    if not any(set(METHODS[task]) & set(settings["methods"]) for task in settings["rows"]):
        raise ValueError(f"no row: --methods={options.methods} has none of --rows={options.rows}")
    if options.repeats < 1:
        raise ValueError(f"--repeats is {options.repeats}; it must be at least 1")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; it must be at least 0")
    return settings


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--rows", help=f"tasks; {','.join(METHODS)} by default")
    parser.add_argument("--methods", help=f"{','.join(METHODS['market'])} by default")
    parser.add_argument("--queries", type=int, help="queries of distractors; default: market's")
    parser.add_argument("--repeats", type=int, default=3, help="of market")
    parser.add_argument("--seed", type=int, default=0, help="seed of the descriptors")
    parser.add_argument("--small", action="store_true", help="the sizes that tests measure")
    parser.add_argument("--output", default="benchmarks/results/ranking.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        settings = choose_settings(options)
        # The processes share an accelerator's memory, so this one must not take all of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        (device,) = choose_devices(0)[:1]
        rows = []
        for row in measure_rows(settings):
            rows.append(row)
            results = [{**row, **compare(row, rows)} for row in rows]
            content = output.record("benchmarks/ranking.py", settings, device, results, ["torch"])
            output.write(content, options.output)  # First, so that an error below loses no results.
        print(table(results))


if __name__ == "__main__":
    main()
