"""The speed of describing crops: `python benchmarks/inference.py`, from the repository root.

Descriptors of uint8 crops of the recipe's size that are in memory, in float32, on the first device.
Prints a table and writes JSON.

- `embed`: `reid_jax.Model.embed`, as users call it.
- `fixed N`: the same network and weights, compiled for batches of N; the last batch is padded. The
  fastest shows what `embed` could reach by its sizes of batches only.
- `eager`, `frozen`, `compiled`: PyTorch with channels_last, eagerly; traced, frozen and optimized
  for inference (`torch.jit`); and by `torch.compile` for each number of crops, with its weights
  frozen (the last needs a C++ compiler). If PyTorch is installed and
  `benchmarks/torch_networks.py` has the network.
- `onnx`: our ONNX file in onnxruntime, if the extra `export` is installed.

All forms have the same random weights and must return the same descriptors. For each number of
crops they take turns. A turn is a pause, a tenth of a second of calls that do not count, and as
long of calls that count, at least one of each: the figures are those of a program that describes
all the time. The process keeps freed memory, as our programs do (`reid_jax/runtime/allocator.py`).
A row has the median and the least milliseconds of a call, and images per second of the median.
`embed / best` compares `embed` with the fastest fixed size, `embed / peers` with the fastest of the
other programs.
"""

import argparse
import pathlib
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

from benchmarks import networks, output
from reid_jax import models
from reid_jax.data.augment import MEAN, STD
from reid_jax.evaluation.descriptors import descriptor_face, descriptor_function
from reid_jax.inference import Model
from reid_jax.models.folding import fold
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.messages import clear_errors

COUNTS = (1, 8, 64)
FIXED = (1, 8, 16, 32)
PEERS = ("eager", "frozen", "compiled", "onnx")
_CLASSES = 751
# Seconds before each form's turn. After a call, threads of onnxruntime and PyTorch wait for more
# work without sleeping, and would slow down the next form. Waking up costs too: on a virtual
# machine, ours took 10 ms longer after a pause of half a second, the others up to 3. After one call
# of 5 ms the next is still slower, so there are more of them.
_PAUSE, _WHILE = 0.5, 0.1

Describe = Callable[[np.ndarray], np.ndarray]


def create_model(name: str, small: bool) -> Model:
    """A model with random weights, whose batch statistics are not those of initialisation."""
    config = networks.recipe(name, small, batch=8, dtype="float32")
    network = models.create(config.model, _CLASSES)
    images = np.zeros((1, *config.data.image_size, 3), np.float32)
    variables = dict(jax.jit(network.init)(jax.random.key(0), images))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        value = rng.uniform(0.5, 1.5, leaf.shape) - (path[-1].key == "mean")
        return value.astype(np.float32)

    statistics_of_batches = jax.tree_util.tree_map_with_path(drawn, variables["batch_stats"])
    return Model(config, network, variables | {"batch_stats": statistics_of_batches}, step=0)


def fixed(model: Model, size: int) -> Describe:
    """The model's network over batches of `size`, the last one padded."""
    device = jax.local_devices()[:1]
    face, weights = descriptor_face(model.network, device), model.descriptor_weights

    def describe(crops):
        padded = np.concatenate([crops, np.repeat(crops[-1:], -len(crops) % size, axis=0)])
        batches = [face(weights, padded[i : i + size]) for i in range(0, len(padded), size)]
        return np.concatenate(jax.device_get(batches))[: len(crops)]

    return describe


def in_torch(model: Model) -> dict[str, Describe]:
    """PyTorch's forms; empty without PyTorch, or if it does not have the network."""
    try:
        import torch

        from benchmarks import torch_networks
    except ImportError:
        return {}
    if model.config.model.name not in torch_networks.NETWORKS:
        return {}
    variables = jax.device_get(model.variables)
    network = torch_networks.create(model.config.model, variables).eval()
    scale = torch.tensor([255.0 * value for value in STD]).reshape(3, 1, 1)
    shift = torch.tensor([255.0 * value for value in MEAN]).reshape(3, 1, 1)

    def prepared(crops):
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)

    def runner(function):
        def describe(crops):
            with torch.inference_mode():
                return function(prepared(crops)).numpy()

        return describe

    size = model.config.data.image_size
    example = torch.zeros(2, 3, *size).contiguous(memory_format=torch.channels_last)
    # torch.jit has them, and torch.compile imports it when a form is called first.
    warnings.simplefilter("ignore", DeprecationWarning)
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(network, example))
        frozen = torch.jit.optimize_for_inference(traced)
    forms = {"eager": runner(network), "frozen": runner(frozen)}
    if shutil.which("g++") or shutil.which("clang++"):
        import torch._inductor.config  # Read when a form is called first.

        torch._inductor.config.freezing = True
        forms["compiled"] = runner(torch.compile(network, dynamic=False))
    return forms


def in_onnx(model: Model) -> dict[str, Describe]:
    """Our ONNX file in onnxruntime; empty without the extra `export`."""
    try:
        import onnxruntime

        from reid_jax.export import onnx

        onnx.check_converter()
    except ImportError:
        return {}
    describe, weights = descriptor_function(model.network), fold(jax.device_get(model.variables))
    content, _ = onnx.convert(
        lambda images: describe(weights, images), tuple(model.config.data.image_size)
    )
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {"onnx": lambda crops: session.run(None, {name: crops})[0]}


def measure(name: str, small: bool, counts: list[int], rounds: int) -> list[dict]:
    """A row for each form and number of crops."""
    model = create_model(name, small)
    forms: dict[str, Describe] = {"embed": model.embed}
    forms |= {f"fixed {size}": fixed(model, size) for size in FIXED}
    forms |= in_torch(model) | in_onnx(model)
    rng = np.random.default_rng(1)
    rows = []
    for count in counts:
        crops = rng.integers(0, 256, (count, *model.config.data.image_size, 3), np.uint8)
        want = forms["fixed 1"](crops)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for form, describe in forms.items():
            _check(form, describe(crops), want)
        for _ in range(rounds):
            for form, describe in forms.items():
                time.sleep(_PAUSE)
                _calls(describe, crops)
                seconds[form] += _calls(describe, crops)
        output.say(f"{name}, {count} crops")
        medians = {form: statistics.median(values) for form, values in seconds.items()}
        rows += [
            {
                "network": name,
                "count": count,
                "form": form,
                "milliseconds": round(1e3 * medians[form], 2),
                "least_milliseconds": round(1e3 * min(values), 2),
                "images_per_second": round(count / medians[form], 2),
                **(_ratios(medians) if form == "embed" else {}),
            }
            for form, values in seconds.items()
        ]
    return rows


def _calls(describe: Describe, crops: np.ndarray) -> list[float]:
    """Call for a while, at least once. Returns the seconds of each call."""
    seconds: list[float] = []
    while sum(seconds) < _WHILE:
        start = time.perf_counter()
        describe(crops)
        seconds.append(time.perf_counter() - start)
    return seconds


def _check(form: str, got: np.ndarray, want: np.ndarray) -> None:
    """Raise ValueError if a form returns other descriptors.

    A value near a threshold of HBFP-Net's pooling may fall on either side, so single numbers of a
    descriptor may differ by more than rounding.
    """
    length = np.linalg.norm(want)
    if not (length > 0 and np.linalg.norm(got - want) < 1e-3 * length):
        raise ValueError(f"{form} returns other descriptors: {got} and not {want}")


def _ratios(medians: dict[str, float]) -> dict[str, float | None]:
    best = min(value for form, value in medians.items() if form.startswith("fixed"))
    peers = [medians[form] for form in PEERS if form in medians]
    return {
        "embed_over_best_fixed": round(medians["embed"] / best, 3),
        "embed_over_peers": round(medians["embed"] / min(peers), 3) if peers else None,
    }


def table(rows: list[dict]) -> str:
    """The rows for the terminal."""
    header = ("network, crops, form", "ms", "least", "images/s", "embed / best", "embed / peers")
    return output.table(
        header,
        [
            (
                f"{row['network']}, {row['count']}, {row['form']}",
                f"{row['milliseconds']:.1f}",
                f"{row['least_milliseconds']:.1f}",
                f"{row['images_per_second']:.1f}",
                *(
                    f"{row[name]:.2f}" if row.get(name) else ""
                    for name in ("embed_over_best_fixed", "embed_over_peers")
                ),
            )
            for row in rows
        ],
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description="The speed of describing crops.")
    parser.add_argument("--networks", help="comma-separated; default: pmm")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="crops of a call")
    parser.add_argument("--rounds", type=int, default=5, help="turns; default: %(default)s")
    parser.add_argument("--small", action="store_true", help="the networks that tests train")
    parser.add_argument("--output", default="benchmarks/results/inference.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    keep_freed_memory()
    with clear_errors(options.traceback):
        names = output.words(options, "networks", networks.known_networks(), ["pmm"])
        counts = [int(word) for word in options.counts.split(",")]
        settings = {
            "networks": names,
            "counts": [str(count) for count in counts],
            "rounds": options.rounds,
            "small": options.small,
        }
        rows = [
            row for name in names for row in measure(name, options.small, counts, options.rounds)
        ]
        others = ("torch", "onnxruntime")
        record = output.record("benchmarks/inference.py", settings, jax.devices()[0], rows, others)
        output.write(record, options.output)
        print(table(rows))


if __name__ == "__main__":
    main()
