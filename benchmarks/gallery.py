"""The cost of a `reid_jax.Gallery`: `python benchmarks/gallery.py`, from the repository root.

Random float32 descriptors are added a thousand at a time, searched, saved and loaded. Prints a
table and writes JSON.

*Index* is computed once, by the first search, and depends only on the gallery. Before searches are
timed, one search runs for compilation; the table has minimum and median of `--repeats` searches.
`other cameras` ignores images from the queries' own camera, one of seven; `one camera` searches a
seventh of the gallery.

*Peak* is the most memory that the process has held so far, as counted by the kernel, including the
gallery.
"""

import argparse
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

import reid_jax
from benchmarks import output
from reid_jax.runtime.devices import choose_devices
from reid_jax.runtime.messages import clear_errors

CAMERAS = 7
_ADDED = 1000


def measure(settings: dict) -> list[dict]:
    """Measure each operation in turn; rows of `what`, `queries`, `seconds`, `peak_bytes`."""
    rng = np.random.default_rng(0)
    count, dim, k = (settings[name] for name in ("images", "dim", "top"))
    rows = []

    def note(what: str, seconds: list[float], queries: int | None = None) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows.append(
            {
                "what": what,
                "queries": queries,
                "seconds": {"minimum": min(seconds), "median": statistics.median(seconds)},
                "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
            }
        )
        output.say(f"{what}: {min(seconds):.3f} s")

    gallery = reid_jax.Gallery()
    adding = 0.0
    for start in range(0, count, _ADDED):
        numbers = np.arange(start, min(start + _ADDED, count))
        features = rng.standard_normal((len(numbers), dim), np.float32)
        names = [f"folder/{i:07d}.jpg" for i in numbers]
        adding += _seconds(
            lambda f=features, n=numbers, t=names: gallery.add(f, camids=n % CAMERAS, names=t)
        )
    note("add", [adding])

    query = rng.standard_normal((settings["queries"], dim), np.float32)
    note("index and first search", [_seconds(lambda: gallery.search(query[:1], k))], 1)
    searches = {
        "search": {},
        "one camera": {"cameras": 3},
        "other cameras": {"camids": 3, "own_camera": False},
    }
    for what, filters in searches.items():
        for queries in sorted({1, len(query)}):
            times = [
                _seconds(lambda q=query[:queries], f=filters: gallery.search(q, k, **f))
                for _ in range(1 + settings["repeats"])
            ]
            note(what, times[1:], queries)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "gallery"
        note("save", [_seconds(lambda: gallery.save(path))])
        note("load", [_seconds(lambda: reid_jax.Gallery.load(path))])
    return rows


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def table(results: list[dict]) -> str:
    """Format the results as text."""
    rows = [("", "", "s", "s", "MiB")]
    for row in results:
        rows.append(
            (
                row["what"],
                "-" if row["queries"] is None else str(row["queries"]),
                *(f"{row['seconds'][which]:.3f}" for which in ("minimum", "median")),
                f"{row['peak_bytes'] / 2**20:,.0f}",
            )
        )
    return output.table(("", "queries", "minimum", "median", "peak"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    known = {
        "images": (500_000, "images in the gallery"),
        "dim": (512, "numbers in a descriptor"),
        "queries": (100, "queries in the larger searches; the others have one"),
        "top": (10, "images to find for each query"),
        "repeats": (5, "repeats of each search"),
    }
    for name, (default, words) in known.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    parser.add_argument("--output", default="benchmarks/results/gallery.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        settings = {name: getattr(options, name) for name in known}
        for name, value in settings.items():
            if value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1")
        (device,) = choose_devices(0)[:1]
        results = measure(settings)
        output.write(
            output.record("benchmarks/gallery.py", settings, device, results), options.output
        )
        print(table(results))


if __name__ == "__main__":
    main()
