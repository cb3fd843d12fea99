"""The cost of each network: `python benchmarks/networks.py`, from the repository root.

For every network with a recipe for Market-1501 (ResNet-50, 384x128 images, 751 identities), on the
first device: parameters, flops of inference and of a training step per image, milliseconds per
step, memory; for HBFP-Net also the flops of the parts of its step. Prints tables and writes JSON.

*Flops* are XLA's count (`cost_analysis`) over the program as JAX passes it to the compiler, the
same on every device. A multiplication and an addition count as two, for any precision. A
convolution counts only the products with values inside the map, not with its padding. Comparisons,
conversions and reductions count one per value; exp, log and square roots are omitted. The count
does not see what the compiler then merges, repeats or passes to libraries. Nor is it less for 3x3
convolutions that run by tiles on CPUs, with fewer products (`reid_jax/models/winograd.py`).

*A step* is a step of `train.py`, on one device, over random images that are already on the device:
augmentation, forward and backward pass, losses, optimizer, metrics; the state is donated.

*Memory* has two numbers. Planned: what the compiled step holds at once in XLA's plan, which is
arguments (state and images) + results + temporary buffers - arguments whose buffers are reused for
results. Peak: `peak_bytes_in_use` of the device's allocator, if it has one (a CPU has none). The
peak never falls: it is given only for a network that raised it.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.util
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For configs and benchmarks.

from benchmarks import output
from reid_jax import models, schedules
from reid_jax.models import winograd
from reid_jax.models.hbfp import LEVELS
from reid_jax.models.pooling import generalized_pool
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.devices import choose_devices, place
from reid_jax.runtime.messages import clear_errors
from reid_jax.training import optimizer as optimizers
from reid_jax.training.state import TrainState, create_state
from reid_jax.training.step import make_step, pmap_step, shard

IDENTITIES = 751  # Market-1501's training identities


def known_networks() -> list[str]:
    """The networks that have a recipe."""
    return [
        name
        for name in models.NETWORKS
        if importlib.util.find_spec(f"reid_jax.configs.{name}_market")
    ]


def recipe(name: str, small: bool, batch: int, dtype: str) -> ConfigDict:
    """The recipe of network `name` for Market-1501, or the one that tests train if `small`.

    Raises:
        ValueError: the network has no recipe, or the batch is not P identities x K images.
    """
    if name not in known_networks():
        raise ValueError(f"unknown network {name!r} in --networks: choose from {known_networks()}")
    module = importlib.import_module(
        f"reid_jax.configs.{name}_{'synthetic' if small else 'market'}"
    )
    config = module.get_config("small" if small else None)
    images = config.data.images_per_identity
    if batch < 2 * images or batch % images:
        raise ValueError(
            f"--batch is {batch}; it must be two identities or more, {images} images of each"
        )
    config.data.identities_per_batch = batch // images
    config.model.dtype = dtype
    return config


def prepare(
    config: ConfigDict, device: jax.Device
) -> tuple[jax.stages.Lowered, Callable[[], TrainState], dict]:
    """Create the step of a recipe, as `reid_jax.programs.train` does, and its arguments.

    Args:
        config: a recipe.
        device: the device to run on.

    Returns:
        The lowered step; a function that creates its first state on the device; its batch, random,
        in NumPy.
    """
    size, per_batch = config.data.image_size, config.data.identities_per_batch
    classes = _num_classes(config)
    network = models.create(config.model, classes, AXIS)
    network.check(size)
    schedule = schedules.create_schedule(config.optim, max(1, classes // per_batch))
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    create = functools.partial(create_state, network, optimizer, size, config.seed)

    count = per_batch * config.data.images_per_identity
    images = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) // config.data.images_per_identity % classes
    batch = shard({"image": images, "label": labels}, 1)
    step = pmap_step(make_step(network, optimizer, schedule, config), [device])
    return step.lower(jax.eval_shape(create), batch), lambda: place(create(), [device]), batch


def _num_classes(config: ConfigDict) -> int:
    synthetic = config.data.layout == "synthetic"
    return config.data.synthetic.train_identities if synthetic else IDENTITIES


def count_flops(function: Callable, *arguments) -> float:
    """XLA's count for one call; the arguments may be shapes."""
    # JAX does not count for GPUs before it compiles.
    with usual_convolutions(), jax.default_device(jax.devices("cpu")[0]):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def count_step_flops(config: ConfigDict) -> float:
    """XLA's count for the step of a recipe."""
    with usual_convolutions():
        return prepare(config, jax.devices("cpu")[0])[0].cost_analysis()["flops"]


@contextlib.contextmanager
def usual_convolutions() -> Iterator[None]:
    """Trace convolutions as they run on a GPU, for counts that are the same on every device."""
    with mock.patch.object(winograd, "conv3x3", winograd.directly):
        yield


def count_costs(config: ConfigDict) -> dict:
    """The cost of a network, computed without compiling or running it.

    Args:
        config: a recipe.

    Returns:
        `parameters`, `forward_flops_per_image` and `step_flops_per_image`; for HBFP-Net also
        `breakdown`, flops per image by part of the step, and `bfp_and_pooling_share` of the step.
    """
    step_flops = count_step_flops(config)
    network = models.create(config.model, _num_classes(config))
    size = config.data.image_size
    count = config.data.identities_per_batch * config.data.images_per_identity
    images = jax.ShapeDtypeStruct((count, *size, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    costs = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "forward_flops_per_image": count_flops(network.apply, variables, images) / count,
        "step_flops_per_image": step_flops / count,
        "breakdown": None,
        "bfp_and_pooling_share": None,
    }
    if config.model.name == "hbfp":
        parts = count_parts(network, variables, images)
        parts["rest"] = step_flops - sum(parts.values())
        costs["breakdown"] = {name: flops / count for name, flops in parts.items()}
        costs["bfp_and_pooling_share"] = (parts["bfp"] + parts["pooling"]) / step_flops
    return costs


def count_parts(network: models.HBFP, variables: dict, images: jax.ShapeDtypeStruct) -> dict:
    """Flops of the parts of HBFP-Net's step, each forward and backward separately.

    The rest of the step are classifiers, losses, sums of maps, augmentation, optimizer and metrics.
    The images need no gradient; the inputs of every other part do.

    Returns:
        Flops over the batch: `trunk`; `second_pass`, blocks of res4 and res5 over informed maps
        (the hierarchy); `bfp`, both pairs; `pooling` of the three levels.
    """

    def perceived(net, images):
        return net.perceived(images, train=True)

    def trunk(net, images):
        return net.trunk(jax.lax.stop_gradient(images), train=True)

    def second_pass(net, low, middle):
        for block in net.second_res4:
            low = block(low, train=True)
        for block in net.second_res5:
            middle = block(middle, train=True)
        return low, middle

    def bfp(net, low, middle, high):
        low_middle = net.bfp["low_middle"](low, middle, train=True)
        return low_middle, net.bfp["middle_high"](middle, high, train=True)

    def pooling(net, *maps):
        return [generalized_pool(features, net.lambdas) for features in maps]

    def apply(part, variables, inputs):
        return network.apply(variables, *inputs, method=part, mutable=["batch_stats"])

    def flops(part, *inputs):
        def both(params, batch_stats, inputs, cotangents):
            def forward(params, inputs):
                return apply(part, {"params": params, "batch_stats": batch_stats}, inputs)

            _, backward, updates = jax.vjp(forward, params, inputs, has_aux=True)
            return backward(cotangents), updates

        cotangents, _ = jax.eval_shape(functools.partial(apply, part), variables, inputs)
        return count_flops(both, variables["params"], variables["batch_stats"], inputs, cotangents)

    (plain, _), _ = jax.eval_shape(functools.partial(apply, perceived), variables, (images,))
    low, middle, high = (plain[level] for level in LEVELS)
    return {
        "trunk": flops(trunk, images),
        "second_pass": flops(second_pass, low, middle),
        "bfp": flops(bfp, low, middle, high),
        "pooling": flops(pooling, low, middle, high),
    }


def measure(config: ConfigDict, steps: int, device: jax.Device) -> dict:
    """All columns of one network; the schema is that of `results` in the JSON."""
    name = config.model.name
    peak_before = peak_bytes(device)
    output.say(f"{name}: counting flops")
    costs = count_costs(config)
    output.say(f"{name}: compiling the step")
    lowered, create, batch = prepare(config, device)
    step = lowered.compile()
    output.say(f"{name}: one step to warm up, {steps} to time")
    seconds = time_steps(step, create(), jax.pmap(lambda x: x, devices=[device])(batch), steps)
    return {
        "network": name,
        **costs,
        "milliseconds_per_step": {
            "minimum": 1e3 * min(seconds),
            "median": 1e3 * statistics.median(seconds),
        },
        "planned_bytes": planned_bytes(step),
        "peak_bytes": raised_peak(peak_before, peak_bytes(device)),
    }


def time_steps(step: Callable, state: TrainState, batch: dict, steps: int) -> list[float]:
    """Seconds of each of `steps` steps, after one that is not counted."""
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def planned_bytes(program: jax.stages.Compiled) -> int:
    """The memory of a program at one time, by XLA's plan; donated buffers count once."""
    # Its peak_memory_in_bytes is not used, because it omits temporary buffers on CPUs.
    plan = program.memory_analysis()
    arguments_and_results = plan.argument_size_in_bytes + plan.output_size_in_bytes
    return arguments_and_results + plan.temp_size_in_bytes - plan.alias_size_in_bytes


def peak_bytes(device: jax.Device) -> int | None:
    """The most bytes allocated since the program began, or None if the device does not count."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def raised_peak(before: int | None, after: int | None) -> int | None:
    """The peak if it was raised between the two counts, otherwise None."""
    return None if before is None or after is None or after <= before else after


def tables(results: list[dict]) -> str:
    """Format the results as text: one row per network, then HBFP-Net's parts."""
    header = ("network", "parameters", "forward", "step", "minimum", "median", "planned", "peak")
    units = ("", "million", "GFLOP/image", "GFLOP/image", "ms/step", "ms/step", "MiB", "MiB")
    rows = [
        (
            result["network"],
            f"{result['parameters'] / 1e6:.2f}",
            f"{result['forward_flops_per_image'] / 1e9:.2f}",
            f"{result['step_flops_per_image'] / 1e9:.2f}",
            f"{result['milliseconds_per_step']['minimum']:.1f}",
            f"{result['milliseconds_per_step']['median']:.1f}",
            f"{result['planned_bytes'] / 2**20:.0f}",
            "-" if result["peak_bytes"] is None else f"{result['peak_bytes'] / 2**20:.0f}",
        )
        for result in results
    ]
    texts = [output.table(header, [units, *rows])]
    for result in results:
        if result["breakdown"]:
            whole = result["step_flops_per_image"]
            parts = [
                (part, f"{flops / 1e9:.2f}", f"{flops / whole:.1%}")
                for part, flops in result["breakdown"].items()
            ]
            header = (f"{result['network']}'s step", "GFLOP/image", "share")
            texts.append(output.table(header, parts))
            texts.append(f"BFP and pooling: {result['bfp_and_pooling_share']:.1%} of the step")
    return "\n\n".join(texts)


def main(arguments: list[str] | None = None) -> None:
    """Parse options, measure, print the tables and write JSON."""
    # absl's flags are global, and one process tests all scripts, so argparse is used here.
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--networks", help="comma-separated; all that have a recipe by default")
    parser.add_argument("--batch", type=int, help="images; 64 by default, 8 on a CPU")
    parser.add_argument("--steps", type=int, default=3, help="steps to time")
    parser.add_argument("--small", action="store_true", help="the recipes that tests train")
    parser.add_argument("--dtype", choices=models.DTYPES, default="float32", help="of computation")
    parser.add_argument("--output", default="benchmarks/results/networks.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    with clear_errors(options.traceback):
        if options.steps < 1:
            raise ValueError(f"--steps is {options.steps}; it must be at least 1")
        (device,) = choose_devices(0)[:1]
        names, batch = options.networks, options.batch
        settings = {
            "networks": known_networks() if names is None else names.split(","),
            "batch": (8 if device.platform == "cpu" else 64) if batch is None else batch,
            "steps": options.steps,
            "small": options.small,
            "dtype": options.dtype,
        }
        configs = [
            recipe(name, options.small, settings["batch"], options.dtype)
            for name in settings["networks"]
        ]
        results = [measure(config, options.steps, device) for config in configs]
        output.write(
            output.record("benchmarks/networks.py", settings, device, results), options.output
        )
        print(tables(results))


if __name__ == "__main__":
    keep_freed_memory()  # As in train.py.
    main()
