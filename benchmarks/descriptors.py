"""Describing images on a GPU: `python benchmarks/descriptors.py`, from the repository root.

For every network with a recipe for Market-1501, with random weights: how many images a second are
described, and how far descriptors in fewer bits are from those in float32. Prints a table and
writes JSON.

All forms describe the same uint8 images, which are already on the device, in batches of `--batch`.
They take turns; the first round does not count. In a turn, a form makes `--burst` calls and waits
for the last, as a program does that describes many batches.

Forms of our network, with weights as `embed` has them:

- `float32`: products in full float32. The errors of all other forms are relative to it,
  |a - b| / |b| over all descriptors.
- `tf32`: JAX's default, in which a GPU may round the factors of products to TF32. On a CPU it is
  `float32`.
- `bfloat16`: `model.dtype=bfloat16`.

Forms of PyTorch, if it is installed and `benchmarks/torch_networks.py` has the network: `eager` and
`compiled` in TF32, `autocast` and `compiled+autocast` in bfloat16; channels_last.

With `--stablehlo=FOLDER`, files exported on another machine describe the images stored beside them,
and their errors are relative to the descriptors that the other machine computed.
`--export=FOLDER` writes such a folder, of the small networks, and measures nothing.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

from benchmarks import inference, networks, output
from reid_jax import models
from reid_jax.data.augment import MEAN, STD
from reid_jax.evaluation.descriptors import descriptor_function, descriptor_weights
from reid_jax.export import stablehlo
from reid_jax.models.folding import fold
from reid_jax.runtime.messages import clear_errors

# Largest relative errors; larger ones mean that the forms do not compute the same.
LIMITS = {"tf32": 1e-2, "bfloat16": 0.1, "stablehlo": 1e-2}
TORCH_FORMS = ("eager", "compiled", "autocast", "compiled+autocast")

# Makes so many calls, waits, and returns the last one's descriptors.
Describe = Callable[[int], np.ndarray]


def in_jax(name: str, small: bool, images: np.ndarray) -> dict[str, Describe]:
    """Our forms, over images that are on the device."""
    model = inference.create_model(name, small)
    device = jax.devices()[0]
    images = jax.device_put(images, device)
    bfloat16 = networks.recipe(name, small, 8, "bfloat16").model
    forms = {
        "float32": (model.network, "highest"),
        "tf32": (model.network, None),
        "bfloat16": (models.create(bfloat16, model.network.num_classes), None),
    }

    def runner(network, precision):
        described = jax.jit(descriptor_function(network))
        weights = descriptor_weights(network, model.variables, [device])

        def describe(count):
            # A precision is part of the compiled program, so it holds while the program is traced.
            with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
                for _ in range(count):
                    found = described(weights, images)
                return jax.block_until_ready(found)

        return describe

    return {form: runner(*chosen) for form, chosen in forms.items()}


def in_torch(name: str, small: bool, images: np.ndarray, forms: list[str]) -> dict[str, Describe]:
    """PyTorch's forms; empty without PyTorch, or if it does not have the network."""
    try:
        import torch

        from benchmarks import torch_networks
    except ImportError:
        return {}
    model = inference.create_model(name, small)
    if model.config.model.name not in torch_networks.NETWORKS:
        return {}
    device = torch_networks.choose_device(jax.devices()[0].platform)
    network = torch_networks.create(model.config.model, jax.device_get(model.variables))
    network = network.eval().to(device)
    batch = torch_networks.on_device(images, device)
    scale = torch_networks.on_device(255 * np.float32(STD).reshape(3, 1, 1), device)
    shift = torch_networks.on_device(255 * np.float32(MEAN).reshape(3, 1, 1), device)

    def described(pixels):
        pixels = (pixels.permute(0, 3, 1, 2).float() - shift) / scale
        return network(pixels.contiguous(memory_format=torch.channels_last)).float()

    def runner(form):
        function = torch.compile(described) if "compiled" in form else described

        def describe(count):
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled="autocast" in form),
            ):
                for _ in range(count):
                    found = function(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return found.cpu().numpy()

        return describe

    return {form: runner(form) for form in forms}


def measure(name: str, settings: dict) -> list[dict]:
    """A row for each form of a network."""
    small, count = settings["small"], settings["batch"]
    size = networks.recipe(name, small, 8, "float32").data.image_size
    images = np.random.default_rng(2).integers(0, 256, (count, *size, 3), np.uint8)
    forms: dict[str, Describe] = {f"jax {k}": v for k, v in in_jax(name, small, images).items()}
    chosen = settings["torch"]
    if chosen != "none":
        made = in_torch(name, small, images, chosen)
        forms |= {f"torch {form}": describe for form, describe in made.items()}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    errors, notes = {}, {}
    for turn in range(1 + settings["rounds"]):
        for form, describe in forms.items():
            if form in notes:
                continue
            start = time.perf_counter()
            try:
                # A first call compiles.
                found = describe(settings["burst"] if turn else 1)
            except Exception as error:
                # PyTorch's compiler may raise any exception, for example without a C++ compiler.
                if "compiled" not in form:
                    raise
                notes[form] = f"skipped: {type(error).__name__}"
                continue
            seconds[form].append((time.perf_counter() - start) / settings["burst"])
            if turn == 0:
                output.say(f"{name}, {form}")
                if form == "jax float32":
                    want = np.asarray(found)
                errors[form] = relative_error(np.asarray(found), want)
    for dtype in ("tf32", "bfloat16"):
        check(f"{name}, {dtype}", errors[f"jax {dtype}"], LIMITS[dtype])
    return [row(name, form, seconds[form][1:], errors.get(form), notes, count) for form in forms]


def row(
    name: str, form: str, seconds: list[float], error: float | None, notes: dict, count: int
) -> dict:
    """A row of the JSON; null where a form could not run."""
    median = statistics.median(seconds) if seconds else None
    return {
        "network": name,
        "form": form,
        "milliseconds": None if median is None else 1e3 * median,
        "images_per_second": None if median is None else count / median,
        "relative_error": error,
        "note": notes.get(form),
    }


def relative_error(found: np.ndarray, want: np.ndarray) -> float:
    """|found - want| / |want| over all numbers; NaN if one of them is."""
    return float(np.linalg.norm(found - want) / np.linalg.norm(want))


def check(what: str, error: float, limit: float) -> None:
    """Raise ValueError if an error is not below its limit."""
    if not error < limit:
        raise ValueError(f"{what}: descriptors differ by {error:.2g} of float32's, limit {limit}")


def export(names: list[str], folder: pathlib.Path) -> None:
    """Write the small networks as StableHLO, with images and the descriptors of this machine.

    Batch norms are folded, as in the files of `reid-jax export`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        model = inference.create_model(name, small=True)
        size = tuple(model.config.data.image_size)
        weights = fold(jax.device_get(model.variables))
        describe = functools.partial(descriptor_function(model.network), weights)
        content, _ = stablehlo.convert(describe, size)
        images = np.random.default_rng(3).integers(0, 256, (4, *size, 3), np.uint8)
        with jax.default_matmul_precision("highest"):
            want = np.asarray(jax.jit(describe)(images))
        (folder / f"{name}.stablehlo").write_bytes(content)
        np.savez_compressed(folder / f"{name}.npz", images=images, descriptors=want)
        output.say(f"{name}: {len(content) / 1e6:.1f} MB in {folder}")


def exported(folder: pathlib.Path) -> list[dict]:
    """A row for each file of a folder that `export` wrote.

    Raises:
        FileNotFoundError: the folder has no such file.
        ValueError: the descriptors are not those of the other machine.
    """
    rows = []
    for path in sorted(folder.glob("*.stablehlo")):
        with np.load(path.with_suffix(".npz")) as stored:
            images, want = stored["images"], stored["descriptors"]
        found = stablehlo.run(path.read_bytes(), images)
        start = time.perf_counter()
        stablehlo.run(path.read_bytes(), images)
        seconds, error = time.perf_counter() - start, relative_error(found, want)
        check(str(path), error, LIMITS["stablehlo"])
        rows.append(row(path.stem, "stablehlo", [seconds], error, {}, len(images)))
    if not rows:
        raise FileNotFoundError(f"no file *.stablehlo in {folder}; --export={folder} writes them")
    return rows


def table(rows: list[dict]) -> str:
    """The rows for the terminal."""

    def cell(value, form):
        return "-" if value is None else format(value, form)

    lines = [
        (
            f"{row['network']}, {row['form']}",
            cell(row["images_per_second"], ".1f"),
            cell(row["milliseconds"], ".1f"),
            cell(row["relative_error"], ".1e"),
            row["note"] or "",
        )
        for row in rows
    ]
    return output.table(("network, form", "images/s", "ms", "error", ""), lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--networks", help="comma-separated; all that have a recipe by default")
    parser.add_argument("--batch", type=int, default=64, help="images; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="to time; default: %(default)s")
    parser.add_argument("--burst", type=int, default=10, help="calls a turn; default: %(default)s")
    parser.add_argument("--small", action="store_true", help="the networks that tests train")
    parser.add_argument("--torch", help=f"PyTorch's forms, or none; default: {TORCH_FORMS}")
    parser.add_argument("--stablehlo", help="folder of exported files to run too")
    parser.add_argument("--export", help="write such a folder, and measure nothing")
    parser.add_argument("--output", default="benchmarks/results/descriptors.json", help="JSON")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with clear_errors(options.traceback):
        # Two libraries share the device's memory, so JAX must not take all of it at the start.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        names = output.words(options, "networks", networks.known_networks())
        if options.export:
            export(names, pathlib.Path(options.export))
            return
        forms = "none" if options.torch == "none" else output.words(options, "torch", TORCH_FORMS)
        settings = {
            "networks": names,
            **{"batch": options.batch, "rounds": options.rounds, "burst": options.burst},
            "small": options.small,
            "torch": forms,
            **({"stablehlo": options.stablehlo} if options.stablehlo else {}),
        }
        rows = exported(pathlib.Path(options.stablehlo)) if options.stablehlo else []
        for name in names:
            rows += measure(name, settings)
            record = output.record(
                "benchmarks/descriptors.py", settings, jax.devices()[0], rows, ["torch"]
            )
            output.write(record, options.output)  # A run that is stopped keeps what it has.
        print(table(rows))


if __name__ == "__main__":
    main()
