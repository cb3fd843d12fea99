"""The memory of a training run: `python benchmarks/memory.py`, from the repository root.

Measures the peak host memory of `reid_jax.programs.train.train` over a dataset of Market-1501's
size for each loader, and compares it with the expected size. Prints a table and writes JSON. If a
peak is above its limit, the program reports it and ends with exit status 1: the limit is a promise
of the README, and this script tests it.

*The dataset* is a folder in Market-1501's layout with its counts: 12,936 training boxes of 751
identities, 3,368 queries and 15,913 gallery boxes, of 750 other identities and of distractors. The
files are different JPEG files of 64x128 pixels: 128 synthetic pedestrians, with the noise of a
camera.

*Each row is a run in a separate process*, with the allocator settings of `train.py`: all images
opened at 384x128 and two evaluations of the whole query and gallery, with three steps in batches of
64 and two checkpoints between them. To take only minutes on a CPU, `tfdata`, `memory` and `device`
train PMM with a narrow trunk and heads of full size, which give descriptors of 1,536 numbers.
`full` is the whole recipe of PMM, with `tfdata`, for two steps, evaluated on 64 queries and 128
gallery boxes.

*Peak* is the kernel's count of the most pages that the process held at once (VmHWM, under Linux;
null on other systems, where no limit is tested). It does not include memory of an accelerator.

*Expected* is the sum of what a run must hold: the *program*, the process before the run with all
modules imported; the *images*, N x 384 x 128 x 3 for all of them: `tfdata` maps a file of them,
whose pages the system may take back at any time, `memory` holds them, and `device` does so on a
CPU, whose memory is the host's; the *descriptors*, float32; and on a CPU the *network*, the memory
of the compiled step in XLA's plan.

*The limit* is the expected size, plus a quarter of the network, plus `--spare` MiB: for batches in
progress, ranking, copies of checkpoints, compilers and libraries, and freed memory that is not
returned, which grows after the first evaluations.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.metadata
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from unittest import mock

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For configs and benchmarks.

from benchmarks import input as inputs
from benchmarks import networks, output, ranking
from reid_jax.data import datasets
from reid_jax.data.splits import Dataset
from reid_jax.programs import train
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.devices import choose_devices
from reid_jax.runtime.messages import clear_errors

LOADERS = ("tfdata", "memory", "device")
ROWS = (*LOADERS, "full")

# Boxes and training identities of Market-1501, and the sizes that `--small` measures.
SIZE = {"train": 12936, "identities": 751, "query": 3368, "gallery": 15913}
SMALL = {"train": 48, "identities": 8, "query": 8, "gallery": 40}
# The test split of `full`.
FEW = {"query": 64, "gallery": 128}
PEOPLE = 128
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

# What a network may take in addition to its step's plan: freed memory is fragmented, and the
# evaluation programs have their own plans.
SHARE = 0.25

PARTS = ("program", "images", "descriptors", "network")
COLUMNS = (
    *("row", "note", "network", "batch", "steps", *SIZE, "file_bytes"),
    *(f"{part}_bytes" for part in PARTS),
    *("expected_bytes", "limit_bytes", "peak_bytes", "seconds"),
)


def write_dataset(root: str, size: dict[str, int]) -> None:
    """Draw a folder in Market-1501's layout; see the top of the file.

    Args:
        root: an existing folder.
        size: sizes as in `SIZE`.
    """
    people = [
        np.asarray(person, np.float32)
        for person in inputs.draw_people(min(PEOPLE, size["identities"]))
    ]
    train = np.arange(size["train"])
    query, gallery = ranking.synthetic_descriptors(0, size["query"], size["gallery"], 1, 0)
    # Identities of the test split are odd, those of the training split even.
    splits = {
        "train": (2 * (train % size["identities"]) + 2, train % ranking.CAMERAS),
        "query": (np.maximum(2 * query.pids - 1, 0), query.camids),
        "gallery": (np.maximum(2 * gallery.pids - 1, 0), gallery.camids),
    }
    rng = np.random.default_rng(0)
    for split, (pids, camids) in splits.items():
        folder = pathlib.Path(root, FOLDERS[split])
        folder.mkdir()
        for i, (pid, camid) in enumerate(zip(pids, camids, strict=True)):
            person = people[pid % len(people)]
            pixels = person + inputs.NOISE * rng.standard_normal(person.shape, np.float32)
            pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
            path = folder / f"{pid:04d}_c{camid + 1}s1_{i:06d}_01.jpg"
            Image.fromarray(pixels).save(path, quality=inputs.QUALITY)


def write_few(root: str, whole: str) -> None:
    """Write a dataset with the training split of another and a small part of its test split."""
    os.symlink(os.path.join(whole, FOLDERS["train"]), os.path.join(root, FOLDERS["train"]))
    for split, most in FEW.items():
        folder = FOLDERS[split]
        os.mkdir(os.path.join(root, folder))
        # The first identities, which come after the distractors.
        names = sorted(
            name for name in os.listdir(os.path.join(whole, folder)) if name[:4] > "0000"
        )
        for name in names[:most]:
            os.symlink(os.path.join(whole, folder, name), os.path.join(root, folder, name))


def recipe(row: str, root: str, small: bool) -> ConfigDict:
    """The recipe that a row trains."""
    config = networks.recipe("pmm", small, 32 if small else 64, "float32")
    config.data.update({"layout": "market1501", "root": root})
    config.data.loader = "tfdata" if row == "full" else row
    config.max_steps = 2 if row == "full" else 3
    if row != "full":
        config.model.trunk.update({"depths": (1, 1, 1, 1), "width": 4})
    return config


def measure(row: str, root: str, small: bool) -> dict:
    """Train in this process.

    Returns:
        The columns of the row's `COLUMNS` that are known without computing expectations.
    """
    config = recipe(row, root, small)
    if config.data.loader == "tfdata":
        importlib.import_module("reid_jax.data.tfdata")
    (device, *_) = choose_devices(0)
    program = ranking.memory("/proc/self/status", "VmRSS")
    dataset, start = datasets.load(config.data), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as workdir,
        contextlib.redirect_stdout(sys.stderr),
        # Decoded images do not belong into the user's cache.
        mock.patch.dict(os.environ, XDG_CACHE_HOME=os.path.join(workdir, "cache")),
    ):
        train.train(config, os.path.join(workdir, "run"))
    seconds = time.perf_counter() - start
    peak = ranking.memory("/proc/self/status", "VmHWM")

    lowered, *_ = networks.prepare(config, device)
    planned = networks.planned_bytes(lowered.compile()) if device.platform == "cpu" else 0
    files = sum(map(os.path.getsize, _paths(dataset)))
    counts = {split: len(getattr(dataset, split)) for split in FOLDERS}
    pixels = 3 * config.data.image_size[0] * config.data.image_size[1] * sum(counts.values())
    dims = config.model.embedding_dim * config.model.stages
    return {
        "network": "PMM" if row == "full" else "PMM, narrow trunk",
        "batch": config.data.identities_per_batch * config.data.images_per_identity,
        "steps": config.max_steps,
        **counts,
        "identities": dataset.train.num_identities,
        "file_bytes": files,
        "program_bytes": program,
        "images_bytes": pixels,
        "descriptors_bytes": 4 * dims * (counts["query"] + counts["gallery"]),
        "network_bytes": planned,
        "peak_bytes": peak,
        "seconds": seconds,
    }


def _paths(dataset: Dataset) -> Iterator[str]:
    for split in FOLDERS:
        yield from getattr(dataset, split).paths


def measure_alone(row: str, root: str, small: bool) -> dict:
    """Run `measure` in a separate process, which keeps freed memory as train.py does.

    Raises:
        OSError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, keep_freed_memory) as pool:
        try:
            return pool.submit(measure, row, root, small).result()
        except BrokenProcessPool as error:
            raise OSError(
                f"the process of {row} was killed: the system may be short of memory; omit the row "
                "with --rows"
            ) from error


def judge(row: dict, spare: int) -> dict:
    """Add expectations and the limit to a row, if the kernel counts memory; `spare` is in MiB."""
    if row["program_bytes"] is None or row["peak_bytes"] is None:
        return row
    expected = sum(row[f"{part}_bytes"] for part in PARTS)
    return row | {
        "expected_bytes": expected,
        "limit_bytes": expected + int(SHARE * row["network_bytes"]) + spare * 2**20,
    }


def measure_rows(settings: dict) -> Iterator[dict]:
    """Rows of `COLUMNS`, one after the other."""
    size = SMALL if settings["small"] else SIZE
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as few:
        output.say(f"drawing {sum(size.values()) - size['identities']:,} files")
        write_dataset(whole, size)
        write_few(few, whole)
        for row in settings["rows"]:
            output.say(f"{row}: training")
            known = dict.fromkeys(COLUMNS) | {"row": row}
            try:
                known |= measure_alone(row, few if row == "full" else whole, settings["small"])
            except ImportError as error:
                yield known | {"note": f"skipped: {error}"}
            else:
                yield judge(known, settings["spare"])


def excesses(results: list[dict]) -> list[str]:
    """The rows above their limits, one line each."""
    return [
        f"{row['row']}: the peak, {row['peak_bytes'] / 2**20:,.0f} MiB, is above the limit of "
        f"{row['limit_bytes'] / 2**20:,.0f} MiB"
        for row in results
        if row["limit_bytes"] is not None and row["peak_bytes"] > row["limit_bytes"]
    ]


def table(results: list[dict]) -> str:
    """Format the results as text: one line per row, in MiB, then notes."""

    def cell(value):
        return "-" if value is None else f"{value / 2**20:,.0f}"

    columns = (*PARTS, "expected", "limit", "peak")
    rows = [("", "s", *["MiB"] * len(columns))]
    for row in results:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        rows.append((row["row"], seconds, *(cell(row[f"{name}_bytes"]) for name in columns)))
    notes = [f"{row['row']}: {row['note']}" for row in results if row["note"]]
    return "\n".join([output.table(("row", "time", *columns), rows), *notes])


def choose_settings(options: argparse.Namespace) -> dict:
    """Every option that changes what is measured.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    if options.spare < 0:
        raise ValueError(f"--spare is {options.spare}; it must be at least 0")
    return {
        "rows": output.words(options, "rows", ROWS),
        "spare": options.spare,
        "small": options.small,
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--rows", help=f"{','.join(ROWS)} by default")
    parser.add_argument("--spare", type=int, default=2048, help="MiB above the expected size")
    parser.add_argument("--small", action="store_true", help="the sizes that tests measure")
    parser.add_argument("--output", default="benchmarks/results/memory.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        settings = choose_settings(options)
        # The processes share an accelerator's memory, so this one must not take all of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        (device, *_) = choose_devices(0)
        results = []
        for row in measure_rows(settings):
            results.append(row)
            others = ("tensorflow", "tensorflow-cpu")
            content = output.record("benchmarks/memory.py", settings, device, results, others)
            output.write(content, options.output)  # First, so that an error below loses no results.
        print(table(results))
        sys.exit("\n".join(excesses(results)) or 0)


if __name__ == "__main__":
    main()
