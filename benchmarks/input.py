"""How fast images reach the network: `python benchmarks/input.py`, from the repository root.

Measures images per second of our loaders `tfdata`, `memory` and `disk`, of `encoded`, which is
`tfdata` where decoded images have no room on disk, and of worker processes with Pillow, as PyTorch
programs use them (`benchmarks/pil_loaders.py`). All use the same cores and do the same work:
batches of 64 at 384x128, flipped, normalised and with erased squares, float32. Prints a table and
writes JSON.

*The files* are synthetic pedestrians from `reid_jax.data.synthetic`, with the noise of a camera:
JPEG files of quality 95, with 64x128 pixels as in Market-1501, and with 256x512. Beyond 256 files,
the same pedestrians come again with other noise. The files are read beforehand, so the disk is not
measured.

*The work*. Our loaders deliver bytes, (64, 384, 128, 3). A program of JAX, part of a training step,
does the rest: `augmented` is both, the number to compare; `delivered` is only the loader. The
workers do all of the work (`augmented`), and deliver (64, 3, 384, 128) in shared memory, without a
copy. `processes` are Python's; `dataloader` is PyTorch's, if it is installed. There are as many
workers as cores, each two batches ahead. TensorFlow and JAX choose their number of threads.

*Bounds*. `decoded` is from worker processes that only read and decode the files: a loader that
decodes files in every epoch on these cores can hardly be faster. The row `none` is only the program
of JAX, over a batch in memory: no loader is faster with it.

*Time to open* is the time from the list of files to a loader that is ready: all files are read,
checked and, except for `encoded`, decoded and resized, once. `tfdata` and `disk` keep them in
temporary folders; the system holds what was written in memory, as it does between two runs.

*Memory* is what the process holds without the pages of files, under Linux: how much of it opening
adds (`opened`), and by how much it grows during the counted batches (`grown`). With more than one
loader, freed memory of one may serve the next.

*The timing*. All loaders take turns. In each round, every loader delivers `--burst` batches.
Uncounted batches come before them, as many as are read ahead, and after them, so that no loader
gains from batches read ahead during the turns of others, and none reads less ahead at the end.
Batches have random images, epoch after epoch. The first round is not counted. Images per second and
ratios are of the median round. The ratio is to the faster of `processes` and `dataloader`, with
files of the same size.
"""

import argparse
import contextlib
import functools
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For configs and benchmarks.

from benchmarks import networks, output, pil_loaders, step
from benchmarks.ranking import memory as process_memory
from reid_jax.data.augment import augment
from reid_jax.data.loaders import Images, open_images
from reid_jax.data.synthetic.capture import draw
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.devices import choose_devices
from reid_jax.runtime.messages import clear_errors

PEOPLE = 256  # different ones
# Height and width of the files.
FILE_SIZES = ((128, 64), (512, 256))
QUALITY = 95
# Standard deviation of the noise, in grey levels of 255. Without noise, an enlarged drawing decodes
# faster than a photograph.
NOISE = 3.0

LOADERS = ("tfdata", "memory", "disk", "encoded")
PIL = ("processes", "dataloader")

COLUMNS = (
    *("height", "width", "bytes_per_file", "loader", "work", "note"),
    *("milliseconds_per_image", "images_per_second", "speedup_over_pil", "seconds_to_open"),
    *("opened_bytes", "grown_bytes"),
)

Stream = Callable[[Iterable[np.ndarray]], Iterator]


def draw_people(count: int) -> list[Image.Image]:
    """Draw different pedestrians of 64x128 pixels."""
    return [Image.fromarray(draw(0, 2 * i + 1, 1 + i % 6, 0)) for i in range(count)]


def write_files(
    people: list[Image.Image], count: int, shape: tuple[int, int], folder: str
) -> list[str]:
    """Write pictures as different JPEG files of (height, width) pixels, and return their paths."""
    rng = np.random.default_rng(0)
    height, width = shape
    # Each file has another part of it, which is faster than new noise.
    noise = rng.normal(0, NOISE, (4 * height, 4 * width, 3)).astype(np.float32)
    paths = []
    for i, person in zip(range(count), itertools.cycle(people), strict=False):
        top, left = rng.integers(3 * height), rng.integers(3 * width)
        pixels = np.asarray(person.resize((width, height), Image.Resampling.BICUBIC))
        pixels = pixels + noise[top : top + height, left : left + width]
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        paths.append(f"{folder}/{height}x{width}_{i}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=QUALITY)
    return paths


def private_bytes() -> int | None:
    """Return what this process holds in memory, without pages of files, or None if unknown."""
    return process_memory("/proc/self/status", "RssAnon")


def growth(before: int | None) -> int | None:
    """By how much `private_bytes` has grown."""
    now = private_bytes()
    return None if now is None or before is None else now - before


def index_batches(first: int, files: int, batch: int) -> Iterator[np.ndarray]:
    """Endless batches, (B,) int32: epochs in random order, without the remainder of each epoch."""
    rng = np.random.default_rng(0)
    while True:
        order = first + rng.permutation(files).astype(np.int32)
        yield from order[: files // batch * batch].reshape(-1, batch)


def timed_stream(stream: Stream, order: Iterator[np.ndarray], lead: int) -> Callable[[int], float]:
    """Return a function from a number of batches of a stream to the seconds they take.

    Args:
        stream: from batches of indices to batches of images.
        order: endless batches of indices.
        lead: number of uncounted batches before the counted ones, and after them.
    """

    def take(batches, count):
        for batch in itertools.islice(batches, count):
            jax.block_until_ready(batch)

    def seconds(count):
        batches = iter(stream(list(itertools.islice(order, lead + count + lead))))
        take(batches, lead)
        duration = step.timed(functools.partial(take, batches))(count)
        take(batches, lead)
        return duration

    return seconds


def augmented(stream: Stream, program: Callable) -> Stream:
    """A stream of bytes, followed by the augmentation of a training step.

    Args:
        stream: a stream of bytes.
        program: the augmentation, a JAX function of key and batch.
    """
    keys = (jax.random.fold_in(jax.random.key(0), i) for i in itertools.count())

    def ahead(order):
        results = (program(next(keys), batch) for batch in stream(order))
        # As in training: the next batch is requested while the program works on the current one.
        for result, _ in itertools.pairwise(itertools.chain(results, [None])):
            yield result

    return ahead


def opened(paths: list[str], size: tuple[int, int], loader: str) -> Images:
    """Open one of `LOADERS`, with a cache of its own."""
    if loader == "encoded":
        from reid_jax.data.encoded import EncodedImages

        return EncodedImages(paths, size)
    cache = os.path.join(os.environ["XDG_CACHE_HOME"], loader)
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=cache):
        return open_images(paths, size, loader)


def our_streams(
    paths: list[str], program: Callable, config: ConfigDict, settings: dict
) -> Iterator[tuple[dict, Stream | None]]:
    """Our loaders: the known columns of each row, and its stream, or None if it is skipped.

    Args:
        paths: files of one size.
        program: augments a batch, from key and bytes.
        config: a recipe.
        settings: settings of the script.
    """
    for loader in settings["loaders"]:
        output.say(f"{loader}: opening")
        row, streams = {"loader": loader}, (None, None)
        try:
            opened(paths[:1], config.data.image_size, loader)  # Imports TensorFlow.
            start, held = time.perf_counter(), private_bytes()
            images = opened(paths, config.data.image_size, loader)
        except ImportError as error:
            row["note"] = f"skipped: {error}"
        else:
            row["seconds_to_open"] = time.perf_counter() - start
            row["opened_bytes"] = growth(held)
            streams = images.batches, augmented(images.batches, program)
        for work, stream in zip(("delivered", "augmented"), streams, strict=True):
            yield row | {"work": work}, stream
    pixels = np.zeros((settings["batch"], *config.data.image_size, 3), np.uint8)
    alone = augmented(lambda order: itertools.repeat(pixels, len(order)), program)
    yield {"loader": "none", "work": "augmented"}, alone


def start_workers(
    paths: list[str], config: ConfigDict, settings: dict, stack: contextlib.ExitStack
) -> list[tuple[dict, Stream | None]]:
    """The same for Pillow's loaders, over the files of all sizes. The stack ends their workers."""
    size, rest = config.data.image_size, (config.augment.to_dict(), settings["workers"])
    found = []
    for loader in settings["pil"]:
        output.say(f"{loader}: starting {settings['workers']} workers")
        row, stream = {"loader": loader, "work": "augmented"}, None
        try:
            if loader == "processes":
                opened = pil_loaders.processes(paths, size, settings["batch"], *rest)
            else:
                opened = pil_loaders.dataloader(paths, size, *rest)
            stream = stack.enter_context(opened)
        except ImportError as error:
            row["note"] = f"skipped: {error}"
        found.append((row, stream))
        if loader == "processes":
            decoding = functools.partial(stream, job=pil_loaders.decode)
            found.append((row | {"work": "decoded"}, decoding))
    return found


def measure(
    paths: list[str],
    first: int,
    program: Callable,
    pil: list[tuple],
    config: ConfigDict,
    settings: dict,
) -> list[dict]:
    """All rows for files of one size; the schema is that of `results` in the JSON.

    Args:
        paths: the files.
        first: the number of the first of them among the files of all sizes.
        program: augments a batch, from key and bytes.
        pil: rows and streams that `start_workers` returns.
        config: a recipe.
        settings: settings of the script.
    """
    # The most batches read ahead: those of the workers; six of tf.data and one of the program.
    lead = max(7, pil_loaders.AHEAD * settings["workers"] + 1)
    found = [(0, *one) for one in our_streams(paths, program, config, settings)]
    found += [(first, *one) for one in pil]
    grown = {i: [] for i, (_, _, stream) in enumerate(found) if stream}

    def watched(i, run):
        def seconds(count):
            held = private_bytes()
            duration = run(count)
            grown[i].append(growth(held))
            return duration

        return seconds

    runs = {
        i: watched(
            i,
            timed_stream(stream, index_batches(offset, len(paths), settings["batch"]), lead),
        )
        for i, (offset, _, stream) in enumerate(found)
        if stream
    }
    output.say(f"{settings['rounds']} rounds, after one to warm up")
    seconds = step.take_turns(runs, settings["rounds"], settings["burst"])
    for i, (_, row, _) in enumerate(found):
        if "seconds_to_open" in row:
            counted = grown[i][1:]
            row["grown_bytes"] = None if None in counted else sum(counted)
    with Image.open(paths[0]) as image:
        known = {"height": image.height, "width": image.width}
    known["bytes_per_file"] = statistics.fmean(map(os.path.getsize, paths))
    rows = [
        summarize(known | row, seconds.get(i), settings["batch"])
        for i, (_, row, _) in enumerate(found)
    ]
    return [{**row, "speedup_over_pil": speedup(row, rows)} for row in rows]


def summarize(row: dict, seconds: list[float] | None, batch: int) -> dict:
    """A row of `COLUMNS` from its known columns, and the seconds per batch if it ran."""
    row = {**dict.fromkeys(COLUMNS), **row}
    if seconds is not None:
        times = {"minimum": min(seconds), "median": statistics.median(seconds)}
        row["milliseconds_per_image"] = {key: 1e3 * t / batch for key, t in times.items()}
        row["images_per_second"] = batch / times["median"]
    return row


def speedup(row: dict, rows: list[dict]) -> float | None:
    """The ratio of one of our loaders with augmentation to the fastest of Pillow's."""
    if row["loader"] not in LOADERS or row["work"] != "augmented":
        return None
    rates = [
        other["images_per_second"]
        for other in rows
        if other["loader"] in PIL and other["work"] == "augmented" and other["note"] is None
    ]
    ran = row["images_per_second"] is not None and rates
    return row["images_per_second"] / max(rates) if ran else None


def table(results: list[dict]) -> str:
    """Format the results as text: one line per row, then notes."""

    def cell(value, form):
        return "-" if value is None else format(value, form)

    def mebibytes(value):
        return "-" if value is None else f"{value / 2**20:.0f}"

    header = ("files", "KB", "loader", "work", "images/s", "minimum", "median", "/ PIL", "open")
    header += ("opened", "grown")
    rows = [("", "", "", "", "", "ms/image", "ms/image", "", "s", "MiB", "MiB")]
    notes = []
    for row in results:
        times = row["milliseconds_per_image"] or {}
        size = f"{row['height']}x{row['width']}"
        rows.append(
            (
                *(size, f"{row['bytes_per_file'] / 1e3:.1f}", row["loader"], row["work"]),
                cell(row["images_per_second"], ".0f"),
                *(cell(times.get(which), ".3f") for which in ("minimum", "median")),
                *(cell(row["speedup_over_pil"], ".2f"), cell(row["seconds_to_open"], ".2f")),
                *(mebibytes(row["opened_bytes"]), mebibytes(row["grown_bytes"])),
            )
        )
        if row["note"]:
            notes.append(f"{size}, {row['loader']} {row['work']}: {row['note']}")
    return "\n".join([output.table(header, rows), *notes])


def choose_settings(options: argparse.Namespace) -> dict:
    """Every option that changes what is measured.

    Raises:
        ValueError: an option has a value that is not allowed.
    """

    def number(option):
        value = getattr(options, option)
        if value < 1:
            raise ValueError(f"--{option} is {value}; it must be at least 1")
        return value

    settings = {
        "loaders": output.words(options, "loaders", LOADERS),
        "pil": output.words(options, "pil", PIL),
        "files": number("files"),
        "batch": number("batch"),
        "rounds": number("rounds"),
        "burst": number("burst"),
        "workers": number("workers"),
        "small": options.small,
    }
    if settings["files"] < settings["batch"]:
        raise ValueError(
            f"--files is {settings['files']}; it must be at least --batch, {settings['batch']}"
        )
    return settings


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--loaders", default=",".join(LOADERS), help="our loaders, comma-separated")
    parser.add_argument("--pil", default=",".join(PIL), help="Pillow's, comma-separated")
    parser.add_argument("--files", type=int, default=256, help="number of files of each size")
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time")
    parser.add_argument("--burst", type=int, default=20, help="batches a round")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        help="workers of Pillow's loaders; as many as cores by default",
    )
    parser.add_argument("--small", action="store_true", help="the image size that tests train on")
    parser.add_argument("--output", default="benchmarks/results/input.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        settings = choose_settings(options)
        (device,) = choose_devices(0)[:1]
        config = networks.recipe("pmm", options.small, 64, "float32")
        program = jax.jit(lambda key, images: augment(key, images, config.augment))
        output.say(f"writing {options.files} files of each size")
        people = draw_people(min(PEOPLE, options.files))
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            files = [write_files(people, options.files, shape, folder) for shape in FILE_SIZES]
            pil = start_workers([*itertools.chain(*files)], config, settings, stack)
            results = []
            for i, (shape, paths) in enumerate(zip(FILE_SIZES, files, strict=True)):
                output.say(f"files of {shape[0]}x{shape[1]}")
                results += measure(paths, i * len(paths), program, pil, config, settings)
        others = ("pillow", "tensorflow", "tensorflow-cpu", "torch")
        content = output.record("benchmarks/input.py", settings, device, results, others)
        output.write(content, options.output)
        print(table(results))


if __name__ == "__main__":
    keep_freed_memory()  # As in train.py.
    main()
