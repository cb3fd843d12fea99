"""The speed of a training step: `python benchmarks/step.py`, from the repository root.

For every network with a recipe for Market-1501 (ResNet-50, 384x128 images, 751 identities), on the
first device: our step in bfloat16 and float32, and the same step in PyTorch if
`benchmarks/torch_networks.py` has the network. Prints a table and writes JSON.

*A step* is the program that `train.py` runs, over random images that are already on the device. The
compiled program is called directly: the measurement excludes the work of `jax.pmap` in Python
before each call, milliseconds that a GPU does not wait for. All forms of a network start from the
same variables and take turns: in each round, every form makes `--burst` steps and waits for the
last. Each library chooses its number of threads, and both use TF32 for float32 if a GPU has it. The
warm-up and the first round are not counted. Images per second, ratios and shares are of the median
round. If the median is far from the minimum, other programs disturbed the measurement. Ratios to
PyTorch are to its fastest form in the same dtype.

*Share of the roofline* is the time that the step would take at the device's best rates,

    max(flops / rate of products, bytes / rate of copying) / measured time

Flops are XLA's count over the program as JAX passes it to the compiler. Convolutions that run by
tiles on CPUs count as such, with fewer products than in `benchmarks/networks.py`. The compiled
program's own count is given too, but omits what a compiler passes to libraries. Bytes are those
that each operation of the compiled program reads and writes. They are an estimate that ignores
caches and the needs of libraries, and they belong to this program: a program that moved fewer bytes
would have a lower floor. The rates are measured in the same rounds, and the best is used: a product
of two large square matrices in the step's dtype, and adding one to a large array in place.

*The loop* is the work of `reid_jax.training.loop` between log lines, with each loader: sampler,
images, transfer, step. It is measured for one network, PMM if possible. The images are JPEG files
of Market-1501's size, four batches of them. A turn begins with uncounted steps, so that it does not
use batches read ahead during other turns, and it reads ahead to its end. Its share is its images
per second divided by those of the step without the loop.

*Memory*: XLA's plan is as in `benchmarks/networks.py`. The peak is the most memory allocated in
addition to what was held before the form was created. Ours is given if it is the highest peak so
far, which is certain if `--networks` and `--dtypes` have one word each.

*The whole run* is PMM's on Market-1501, 400 epochs of 47 steps of 64 images: the minutes of its
steps at the median, without evaluation and checkpoints.

*The profile*, with `--profile`, is of one more step of each of our forms, after all were timed:
milliseconds by kind of kernel (`benchmarks/kernels.py`).
"""

import argparse
import functools
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For configs and benchmarks.

from benchmarks import kernels, networks, output
from reid_jax import models
from reid_jax.data.loaders import Images, open_images
from reid_jax.data.pipeline import train_batches
from reid_jax.data.sampler import IdentitySampler
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.devices import choose_devices, place
from reid_jax.runtime.messages import clear_errors
from reid_jax.training.feed import feed
from reid_jax.training.state import TrainState

# How a step of PyTorch runs: eagerly or compiled; `autocast` computes in bfloat16.
TORCH_FORMS = ("eager", "compiled", "autocast", "compiled+autocast")
# Compiled with a search over many kernels, and replayed as CUDA graphs: takes minutes, so optional.
SLOW_TORCH_FORMS = ("tuned", "tuned+autocast")
# Ways to hold the images, the values of `data.loader`.
LOADERS = ("device", "memory", "disk", "tfdata")
# Uncounted steps of the loop, at least as many as there are batches read ahead: tf.data holds two,
# resizes two more and decodes others, and the transfer has one.
LEAD = 7
# Height and width of Market-1501's files.
FILE_SIZE = (128, 64)
# Images in a step of the run whose time is estimated, PMM's on Market-1501.
PAPER_BATCH = 64

COLUMNS = (
    *("network", "library", "form", "dtype", "note"),
    *("milliseconds_per_step", "images_per_second", "planned_bytes", "peak_bytes"),
    *("flops", "compiled_flops", "bytes_accessed", "roofline"),
    *("speedup_over_torch", "loop_share", "whole_run_minutes", "profile"),
)


class Contender(NamedTuple):
    """A form of a network's step, compiled and warm."""

    row: dict  # of `COLUMNS`, the columns known before it is timed
    run: Callable[[int], float] | None  # seconds that so many steps take; None if it cannot run
    program: str | None = None  # text of the compiled step, if it can be profiled


def timed(run: Callable[[int], object]) -> Callable[[int], float]:
    """Wrap a function that makes some steps and waits, so that it returns the seconds it took."""

    def seconds(count):
        start = time.perf_counter()
        run(count)
        return time.perf_counter() - start

    return seconds


def stepper(step: Callable, state: TrainState) -> Callable[[Iterator, int], None]:
    """Return a function that makes `count` steps from its own state, one per batch, and waits."""

    def run(batches, count):
        nonlocal state
        metrics = None
        for _ in range(count):
            state, metrics = step(state, next(batches))
        jax.block_until_ready((state, metrics))

    return run


def jax_contenders(
    config: ConfigDict, start: TrainState | None, device: jax.Device, loaders: list[str]
) -> tuple[list[Contender], TrainState, dict]:
    """Our step of a recipe, and the loop with each of `loaders`.

    Returns:
        The contenders, the state they started from (`start` if it is given), and the batch, both in
        NumPy.
    """
    name, dtype = config.model.name, config.model.dtype
    output.say(f"{name}, jax, {dtype}: compiling")
    peak_before = networks.peak_bytes(device)
    held = (device.memory_stats() or {}).get("bytes_in_use", 0)
    lowered, create, batch = networks.prepare(config, device)
    step = lowered.compile()
    start = jax.device_get(create()) if start is None else start
    run = stepper(step, place(start, [device]))
    on_device = jax.pmap(lambda x: x, devices=[device])(batch)
    bare = functools.partial(run, itertools.repeat(on_device))
    bare(1)
    row = {"network": name, "library": "jax", "form": "step", "dtype": dtype}
    peak = networks.raised_peak(peak_before, networks.peak_bytes(device))
    costs = {
        "planned_bytes": networks.planned_bytes(step),
        "peak_bytes": None if peak is None else peak - held,
        "flops": flops_of(lowered, config),
        "compiled_flops": step.cost_analysis()["flops"],
        "bytes_accessed": step.cost_analysis()["bytes accessed"],
    }
    contenders = [Contender({**row, **costs}, timed(bare), step.as_text())]
    for loader in loaders:
        form = {**row, "form": f"loop:{loader}"}
        try:
            contenders.append(Contender(form, looper(run, config, loader, device)))
        except ImportError as error:
            form["note"] = _skipped(error)
            contenders.append(Contender(form, None))
    return contenders, start, {name: leaf[0] for name, leaf in batch.items()}


def flops_of(lowered: jax.stages.Lowered, config: ConfigDict) -> float:
    """XLA's count for our step, as it is on this device."""
    counted = lowered.cost_analysis()
    return networks.count_step_flops(config) if counted is None else counted["flops"]


def looper(
    run: Callable[[Iterator, int], None], config: ConfigDict, loader: str, device: jax.Device
) -> Callable[[int], float]:
    """Return a function from a number of steps of the loop to their seconds; `run` is a `stepper`.

    Raises:
        ImportError: the loader needs a package that is not installed.
    """
    images, labels = open_blurs(config, loader, device)

    def seconds(count):
        batches = loop_batches(config, images, labels, LEAD + count + LEAD, device)
        run(batches, LEAD)
        duration = timed(functools.partial(run, batches))(count)
        for _ in batches:  # They were read ahead during the last steps, as in a long run.
            pass
        return duration

    return seconds


def open_blurs(config: ConfigDict, loader: str, device: jax.Device) -> tuple[Images, np.ndarray]:
    """Open images for the loop, four batches of JPEG files, with their labels."""
    per_identity = config.data.images_per_identity
    labels = np.repeat(np.arange(4 * config.data.identities_per_batch), per_identity)
    rng = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        # The loader `disk` keeps its file in this cache folder, not in the user's.
        mock.patch.dict(os.environ, XDG_CACHE_HOME=folder),
    ):
        paths = [f"{folder}/{i}.jpg" for i in range(len(labels))]
        for path in paths:
            blobs = Image.fromarray(rng.integers(0, 256, (16, 8, 3), np.uint8))
            blobs.resize(FILE_SIZE[::-1], Image.Resampling.BILINEAR).save(path)
        images = open_images(paths, config.data.image_size, loader, devices=[device])
    return images, labels.astype(np.int32)


def loop_batches(
    config: ConfigDict, images: Images, labels: np.ndarray, steps: int, device: jax.Device
) -> Iterator[dict]:
    """Batches of a number of steps, as the loop passes them to the step."""
    sampler = IdentitySampler(
        labels,
        config.data.identities_per_batch,
        config.data.images_per_identity,
        seed=config.seed,
    )
    return feed(train_batches(images, labels, sampler, 0, steps), [device])


def torch_contenders(
    config: ConfigDict, start: TrainState, batch: dict, device: jax.Device, forms: list[str]
) -> list[Contender]:
    """The step of a recipe in PyTorch, from the variables of `start`, in each of `forms`."""
    from benchmarks import torch_networks

    name = config.model.name
    if name not in torch_networks.NETWORKS:
        return []
    place = torch_networks.choose_device(device.platform)
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    images = torch_networks.on_device(batch["image"], place)
    labels = torch_networks.on_device(batch["label"].astype(np.int64), place)
    contenders = []
    for form in forms:
        output.say(f"{name}, torch, {form}: warming up")
        dtype = "bfloat16" if "autocast" in form else "float32"
        row = {"network": name, "library": "torch", "form": form, "dtype": dtype}
        held = torch_networks.reset_peak(place)
        network = torch_networks.create(config.model, variables).to(place)
        step = torch_networks.make_step(network, config, form)
        run = functools.partial(torch_networks.run, step, images, labels)
        try:
            run(3)  # The second call records a graph of kernels.
        except Exception as error:
            if form in ("eager", "autocast"):
                raise
            # PyTorch's compiler may raise any exception, for example if there is no C++ compiler.
            row["note"] = _skipped(error)
            contenders.append(Contender(row, None))
        else:
            row["peak_bytes"] = torch_networks.peak_bytes(place, held)
            contenders.append(Contender(row, timed(run)))
    return contenders


def _skipped(error: Exception) -> str:
    return f"skipped: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def rate_runs(dtypes: list[str], small: bool, device: jax.Device) -> dict[str, tuple]:
    """Functions that measure the device's rates: products by dtype, and `copy`.

    Returns:
        (run, work): run makes a number of calls and returns their seconds; work is the flops or
        bytes of one call.
    """
    side, size = (8192, 2**30) if device.platform != "cpu" else (2048, 2**29)
    if small:
        side, size = 256, 2**20

    def repeated(function, value):
        def run(count):
            nonlocal value
            for _ in range(count):
                value = function(value)
            jax.block_until_ready(value)

        run(1)
        return timed(run)

    rng = np.random.default_rng(0)
    # Repeated products neither grow nor vanish.
    matrix = rng.normal(scale=side**-0.5, size=(side, side)).astype(np.float32)
    runs = {}
    for dtype in dtypes:
        factor = jax.device_put(jnp.asarray(matrix, dtype), device)
        product = functools.partial(jax.jit(jnp.matmul), factor)
        runs[dtype] = repeated(product, factor), 2 * side**3
    increment = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    array = jax.device_put(np.zeros(size // 4, np.float32), device)
    runs["copy"] = repeated(increment, array), 2 * size
    return runs


def take_turns(
    runs: dict[object, Callable[[int], float]], rounds: int, burst: int
) -> dict[object, list[float]]:
    """Seconds per step of each function in each round, after a round that is not counted.

    Args:
        runs: functions from a number of steps to the seconds they take.
        rounds: number of counted rounds.
        burst: steps of a turn.
    """
    seconds = {key: [] for key in runs}
    for _ in range(1 + rounds):
        for key, run in runs.items():
            seconds[key].append(run(burst) / burst)
    return {key: values[1:] for key, values in seconds.items()}


def measure(
    configs: list[ConfigDict], settings: dict, loop: bool, folder: str, device: jax.Device
) -> list[dict]:
    """All rows of one network's step; the schema is that of `results` in the JSON.

    Args:
        configs: the network's recipe in each dtype.
        settings: settings of the script.
        loop: whether to measure the loop too.
        folder: for traces.
        device: the first one.
    """
    name = configs[0].model.name
    contenders, start = [], None
    for config in configs:
        loaders = settings["loaders"] if loop else []
        added, start, batch = jax_contenders(config, start, device, loaders)
        contenders += added
    if settings["torch"] != "none":
        contenders += torch_contenders(configs[0], start, batch, device, settings["torch"])
    rates = rate_runs([config.model.dtype for config in configs], settings["small"], device)
    output.say(f"{name}: {settings['steps']} rounds, after one to warm up")
    runs = {i: contender.run for i, contender in enumerate(contenders) if contender.run}
    runs |= {what: run for what, (run, _) in rates.items()}
    seconds = take_turns(runs, settings["steps"], settings["burst"])
    best = {what: work / min(seconds[what]) for what, (_, work) in rates.items()}
    if settings["profile"]:
        for contender in contenders:
            if contender.program is not None:
                contender.row["profile"] = profile(contender, start.params, folder, device)
    total_steps = whole_run(configs[0], settings)
    results = [
        summarize(contender.row, seconds.get(i), best, settings["batch"], total_steps)
        for i, contender in enumerate(contenders)
    ]
    return [{**row, **compare(row, results)} for row in results]


def profile(contender: Contender, params: dict, folder: str, device: jax.Device) -> dict:
    """Time of one more step by kind of kernel; its trace and program stay in the folder."""
    name = f"{contender.row['network']}-{contender.row['dtype']}"
    trace = kernels.trace(lambda: contender.run(1), f"{folder}/{name}")
    pathlib.Path(f"{folder}/{name}.txt").write_text(contender.program)
    times = kernels.kernel_times(trace, device.platform)
    return kernels.summarize(times, contender.program, params)


def whole_run(config: ConfigDict, settings: dict) -> int | None:
    """Steps of PMM's run on Market-1501, or None if another step is measured."""
    if config.model.name != "pmm" or settings["small"] or settings["batch"] != PAPER_BATCH:
        return None
    return config.epochs * -(-networks.IDENTITIES // config.data.identities_per_batch)


def summarize(
    row: dict, seconds: list[float] | None, rates: dict, batch: int, total_steps: int | None
) -> dict:
    """A row of `COLUMNS` from the known columns of a form, and its seconds per step if it ran."""
    row = {**dict.fromkeys(COLUMNS), **row}
    if seconds is None:
        return row
    median = statistics.median(seconds)
    row["milliseconds_per_step"] = {"minimum": 1e3 * min(seconds), "median": 1e3 * median}
    row["images_per_second"] = batch / median
    if row["flops"] is not None:
        row["roofline"] = roofline(row, rates, median)
    if total_steps is not None:
        row["whole_run_minutes"] = total_steps * median / 60
    return row


def roofline(row: dict, rates: dict, seconds: float) -> dict:
    """The least time that a step needs at the measured rates, and its share of the real time."""
    products = row["flops"] / rates[row["dtype"]]
    copies = row["bytes_accessed"] / rates["copy"]
    return {
        "flops_per_second": rates[row["dtype"]],
        "bytes_per_second": rates["copy"],
        "bound": "flops" if products > copies else "bytes",
        "share": max(products, copies) / seconds,
    }


def compare(row: dict, rows: list[dict]) -> dict:
    """Compute the two columns of a row that need the network's other forms."""
    if row["library"] == "torch":
        return {}
    rates = {
        (other["library"], other["form"]): other["images_per_second"]
        for other in rows
        if other["dtype"] == row["dtype"] and other["images_per_second"] is not None
    }
    if row["form"].startswith("loop:"):
        if row["images_per_second"] is None:
            return {}
        return {"loop_share": row["images_per_second"] / rates["jax", "step"]}
    torch_rates = [rate for (library, _), rate in rates.items() if library == "torch"]
    speedup = row["images_per_second"] / max(torch_rates) if torch_rates else None
    return {"speedup_over_torch": speedup}


def table(results: list[dict]) -> str:
    """Format the results as text: one row per form; notes, estimates of whole runs, profiles."""

    def cell(value, scale=1.0, form=".1f"):
        return "-" if value is None else format(value / scale, form)

    header = (
        *("network", "form", "dtype", "images/s", "minimum", "median", "planned", "peak"),
        *("flops", "bytes", "roofline", "/ torch", "loop"),
    )
    units = (
        *("", "", "", "", "ms/step", "ms/step", "MiB", "MiB"),
        *("GFLOP", "GB", "share", "", "share"),
    )
    rows, lines, profiles = [units], [], []
    for result in results:
        times = result["milliseconds_per_step"] or {}
        form = f"{result['library']} {result['form']}"
        rows.append(
            (
                *(result["network"], form, result["dtype"]),
                cell(result["images_per_second"]),
                *(cell(times.get(which)) for which in ("minimum", "median")),
                *(cell(result[which], 2**20, ".0f") for which in ("planned_bytes", "peak_bytes")),
                *(cell(result[which], 1e9) for which in ("flops", "bytes_accessed")),
                cell((result["roofline"] or {}).get("share"), form=".1%"),
                cell(result["speedup_over_torch"], form=".2f"),
                cell(result["loop_share"], form=".1%"),
            )
        )
        label = f"{result['network']}, {form}, {result['dtype']}"
        if result["note"]:
            lines.append(f"{label}: {result['note']}")
        if result["whole_run_minutes"]:
            minutes = result["whole_run_minutes"]
            lines.append(f"{label}: all steps of the paper's run take {minutes:.0f} minutes")
        if result["profile"]:
            kinds = [
                (kind["kind"], cell(kind["milliseconds"], form=".2f"), f"{kind['share']:.1%}")
                for kind in result["profile"]["kinds"]
            ]
            profiles.append("\n" + output.table((label, "ms", "share"), kinds))
    return "\n".join([output.table(header, rows), *lines, *profiles])


def choose_settings(options: argparse.Namespace, device: jax.Device) -> dict:
    """Every option that changes what is measured, with the device's defaults filled in.

    Raises:
        ValueError: an option has a value that is not allowed.
        ImportError: PyTorch is requested but not installed.
    """
    on_cpu = device.platform == "cpu"

    def number(option, default):
        value = getattr(options, option)
        value = default if value is None else value
        if value < 1:
            raise ValueError(f"--{option} is {value}; it must be at least 1")
        return value

    known = networks.known_networks()
    forms = TORCH_FORMS[:1] if on_cpu else TORCH_FORMS
    # A peak can be measured only if it is the highest so far: smaller ones come first.
    dtypes = ["float32"] if on_cpu else ["bfloat16", "float32"]
    settings = {
        "networks": output.words(options, "networks", known),
        "batch": number("batch", 8 if on_cpu else PAPER_BATCH),
        "steps": number("steps", None),
        "burst": number("burst", 1 if on_cpu else 10),
        "small": options.small,
        "dtypes": output.words(options, "dtypes", models.DTYPES, dtypes),
        "loaders": output.words(options, "loaders", LOADERS),
        "torch": "none"
        if options.torch == "none"
        else output.words(options, "torch", TORCH_FORMS + SLOW_TORCH_FORMS, forms),
        "profile": options.profile is not None,
    }
    if settings["torch"] != "none":
        from benchmarks import torch_networks

        torch_networks.choose_device(device.platform)
    return settings


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--networks", help="comma-separated; all that have a recipe by default")
    parser.add_argument("--batch", type=int, help="images; 64 by default, 8 on a CPU")
    parser.add_argument("--steps", type=int, default=5, help="rounds to time")
    parser.add_argument("--burst", type=int, help="steps a round; 10 by default, 1 on a CPU")
    parser.add_argument("--small", action="store_true", help="the recipes that tests train")
    parser.add_argument("--dtypes", help="compute dtypes; both by default, float32 on a CPU")
    parser.add_argument("--loaders", help=f"loaders of the loop; {','.join(LOADERS)} by default")
    parser.add_argument(
        "--torch",
        help=f"PyTorch's forms, or none; {','.join(TORCH_FORMS)} by default, eager on a CPU; also "
        f"{','.join(SLOW_TORCH_FORMS)}, which take minutes to compile",
    )
    parser.add_argument(
        "--profile",
        metavar="FOLDER",
        nargs="?",
        const="runs/profile",
        help="trace a step of each of our forms into FOLDER, runs/profile by default, with the "
        "compiled program, and add its time by kind of kernel",
    )
    parser.add_argument("--output", default="benchmarks/results/step.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        # Two libraries share the device's memory, so JAX must not take all of it at the start.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        (device,) = choose_devices(0)[:1]
        settings = choose_settings(options, device)
        configs = {
            name: [
                networks.recipe(name, options.small, settings["batch"], dtype)
                for dtype in settings["dtypes"]
            ]
            for name in settings["networks"]
        }
        looped = "pmm" if "pmm" in configs else settings["networks"][0]
        results = []
        for name, recipes in configs.items():
            results += measure(recipes, settings, name == looped, options.profile, device)
            others = [] if settings["torch"] == "none" else ["torch"]
            content = output.record("benchmarks/step.py", settings, device, results, others)
            output.write(content, options.output)  # First, so that an error below loses no results.
        print(table(results))


if __name__ == "__main__":
    keep_freed_memory()  # As in train.py.
    main()
