"""The cost of galleries: `python benchmarks/gallery.py`, from the repository root.

Measures `reid_jax.Gallery` (`exact`), `MilvusGallery` with an embedded database, and FAISS by
itself, each with all descriptors compared (`flat`) and with an inverted file (`ivf`). If
REID_JAX_MILVUS is the address of a Milvus server, also `MilvusGallery` there, with all descriptors
compared and with an index HNSW. Each engine runs in a process of its own; one whose library is not
installed is left out. Prints a table and writes JSON.

*Descriptors* are clusters, because approximate indexes are meaningless for pure noise. A person is
a point of a 32-dimensional normal distribution, turned into D numbers. Each has ten images, with
noise of half that size in the same 32 dimensions, and of a fifth in all D. Queries are further
images of people in the gallery.

*Add* is a thousand images at a time. *Index* happens once, after all images were added, and
includes the first search; *train* is what FAISS' inverted file needs before. Before searches are
timed, one search runs for compilation; the table has minimum and median of `--repeats` searches, or
of fewer if they take more than half a minute. `other cameras` ignores images from the queries' own
camera, one of seven; `one camera` searches a seventh of the gallery.

*Recall* is the share of the nearest `--top` images that an engine finds, as `exact` does.

*Peak* is the most memory that the process has held so far, as counted by the kernel, including the
gallery and all libraries. *Disk* is the size of all files. A server's memory and disk
are not known.
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

from benchmarks import output
from benchmarks.engines import ENGINES, disk_bytes, missing
from reid_jax.runtime.devices import choose_devices
from reid_jax.runtime.messages import clear_errors

_ADDED, _EACH = 1000, 10
_DIMENSIONS, _OWN, _NOISE = 32, 0.5, 0.2
_LONGEST = 30.0  # seconds of repeated searches


class People:
    """Descriptors of people, in blocks that are drawn again whenever they are needed."""

    def __init__(self, images: int, dim: int):
        self.images, self.blocks = images, -(-images // _ADDED)
        turned = np.random.default_rng(0).standard_normal((_DIMENSIONS, dim), np.float32)
        self._turned = turned / np.float32(_DIMENSIONS**0.5)

    def block(self, i: int) -> np.ndarray:
        """The descriptors (N, D) of the i-th thousand images; the last block may be smaller."""
        rng = np.random.default_rng([1, i])
        people = self._people(rng).repeat(_EACH, axis=0)
        return self._images(rng, people[: self.images - i * _ADDED])

    def sample(self, count: int) -> np.ndarray:
        """Descriptors of images from blocks all over the gallery."""
        few = min(self.blocks, -(-count // _ADDED))
        return np.concatenate([self.block(i * self.blocks // few) for i in range(few)])[:count]

    def queries(self, count: int) -> np.ndarray:
        """Descriptors (Q, D) of further images of people from all over the gallery."""
        number = max(self.images // _EACH, 1)
        chosen = [divmod(i * number // count, _ADDED // _EACH) for i in range(count)]
        people = [self._people(np.random.default_rng([1, i]))[person] for i, person in chosen]
        return self._images(np.random.default_rng(2), np.stack(people))

    def _people(self, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal((_ADDED // _EACH, _DIMENSIONS), np.float32)

    def _images(self, rng: np.random.Generator, people: np.ndarray) -> np.ndarray:
        own = people + np.float32(_OWN) * rng.standard_normal(people.shape, np.float32)
        features = own @ self._turned
        return features + np.float32(_NOISE) * rng.standard_normal(features.shape, np.float32)


def measure(settings: dict) -> list[dict]:
    """Measure each engine; rows of `engine`, `what`, `queries`, `seconds` and so on."""
    spawn = multiprocessing.get_context("spawn")
    results, exact = [], None
    for engine in settings["engines"]:
        with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
            rows, found = pool.submit(measure_engine, engine, settings).result()
        exact = found if engine == "exact" else exact
        for row in rows:
            whole = row["what"] == "search" and row["queries"] == settings["queries"]
            if whole and exact is not None:
                row["recall"] = recall(found, exact)
        results += rows
    return results


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the exact neighbours (Q, k) that were found (Q, k)."""
    shares = [np.isin(right, some).mean() for some, right in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def measure_engine(name: str, settings: dict) -> tuple[list[dict], np.ndarray]:
    """Measure one engine in this process; rows, and what it found for all queries (Q, k)."""
    images, dim, k = (settings[key] for key in ("images", "dim", "top"))
    people, rows = People(images, dim), []
    queries = people.queries(settings["queries"])
    found = np.empty((0, k))

    def note(what: str, seconds: list[float], count: int | None = None, **more) -> None:
        rows.append(
            {
                **{"engine": name, "what": what, "queries": count},
                "seconds": {"minimum": min(seconds), "median": statistics.median(seconds)},
                **({"recall": None, "disk_bytes": None} | more),
                "peak_bytes": _peak_bytes(),
            }
        )
        output.say(f"{name}, {what}, {count or 'no'} queries: {min(seconds):.3f} s")

    with tempfile.TemporaryDirectory() as folder:
        engine = ENGINES[name](pathlib.Path(folder), images, dim)
        if hasattr(engine, "train"):
            sample = people.sample(engine.trained)
            note("train", [_seconds(lambda: engine.train(sample))])
            del sample
        adding = 0.0
        for i in range(people.blocks):
            features = people.block(i)
            numbers = np.arange(len(features)) + i * _ADDED
            adding += _seconds(lambda f=features, n=numbers: engine.add(f, n))
        note("add", [adding])
        index = _seconds(engine.index) if hasattr(engine, "index") else 0.0
        first = _seconds(lambda: engine.search(queries[:1], k))
        note("index and first search", [index + first], 1)
        for what, filters in {"search": {}, **engine.filters}.items():
            for count in sorted({1, len(queries)}):
                times, numbers = _repeated(
                    lambda n=count, f=filters: engine.search(queries[:n], k, **f),
                    settings["repeats"],
                )
                found = found if filters else numbers
                note(what, times, count)
        saving = _seconds(engine.save)
        note("save", [saving], disk_bytes=disk_bytes(pathlib.Path(folder)) or None)
        note("load", [_seconds(engine.load)])
        engine.end()
    return rows, found


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _repeated(call: Callable[[], np.ndarray], repeats: int) -> tuple[list[float], np.ndarray]:
    """The seconds of each call after the first, until they have taken too long, and its result."""
    result = call()
    times = [_seconds(call)]
    while len(times) < repeats and sum(times) < _LONGEST:
        times.append(_seconds(call))
    return times, result


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def table(results: list[dict]) -> str:
    """Format the results as text."""
    rows = [("", "", "", "s", "s", "", "MiB", "MiB")]
    for row in results:
        disk = row["disk_bytes"]
        rows.append(
            (
                row["engine"],
                row["what"],
                "-" if row["queries"] is None else str(row["queries"]),
                *(f"{row['seconds'][which]:.3f}" for which in ("minimum", "median")),
                "" if row["recall"] is None else f"{row['recall']:.3f}",
                "" if disk is None else f"{disk / 2**20:,.0f}",
                f"{row['peak_bytes'] / 2**20:,.0f}",
            )
        )
    header = ("", "", "queries", "minimum", "median", "recall", "disk", "peak")
    return output.table(header, rows)


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    known = {
        "images": (1_000_000, "images in the gallery"),
        "dim": (512, "numbers in a descriptor"),
        "queries": (100, "queries in the larger searches; the others have one"),
        "top": (10, "images to find for each query"),
        "repeats": (5, "repeats of each search"),
    }
    for name, (default, words) in known.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    parser.add_argument("--engines", help=f"comma-separated, of {','.join(ENGINES)}; default: all")
    parser.add_argument("--output", default="benchmarks/results/gallery.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        settings = {name: getattr(options, name) for name in known}
        for name, value in settings.items():
            if value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1")
        engines = []
        for engine in output.words(options, "engines", ENGINES):
            if absent := missing(engine):
                output.say(f"{engine} is left out: {' and '.join(absent)}")
            else:
                engines.append(engine)
        settings["engines"] = engines
        (device,) = choose_devices(0)[:1]
        rows, others = measure(settings), ("faiss-cpu", "milvus-lite", "pymilvus")
        content = output.record("benchmarks/gallery.py", settings, device, rows, others)
        output.write(content, options.output)
        print(table(content["results"]))


if __name__ == "__main__":
    main()
