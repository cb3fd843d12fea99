"""The time of a training step by kind of kernel, from a trace of one step."""

import collections
import pathlib
import re
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.profiler import ProfileData

# The number of kinds to name; the remaining time is one more, `rest`.
KINDS = 12

# A line of a compiled program: the instruction's name, result and operation, and JAX's name of it.
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<result>\(.*?\)|\S+) (?P<operation>[\w-]+)\("
    r'(?:.*?metadata=\{[^}]*?op_name="(?P<path>[^"]*)")?'
)
# The trace also has events for these, which contain other operations.
_CONTAINERS = {"call", "conditional", "while"}
# Parts of the names of libraries' kernels.
_LIBRARIES = {
    "wgrad": "convolution, weight gradient",
    "dgrad": "convolution, backward",
    "fprop": "convolution, forward",
    "gemm": "product of a library",
    "nvjet": "product of a library",
}
# The kind of a module, by a part of its name; in a block, the rest are activations and sums.
_MODULES = {
    "conv": "convolution",
    "bn": "batch norm",
    "trunk": "stem",
    "layer": "activation",
    "extra": "activation",
    "heads": "heads",
}


def trace(run: Callable[[], object], folder: str | pathlib.Path) -> ProfileData:
    """Trace a function until its results are ready.

    Args:
        run: the function; it is called once, and waits for its results.
        folder: for the trace, which TensorBoard's profiler reads too.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        run()
    paths = pathlib.Path(folder).glob("plugins/profile/*/*.xplane.pb")
    return ProfileData.from_file(str(max(paths, key=lambda path: path.stat().st_mtime)))


def kernel_times(profile: ProfileData, platform: str) -> collections.Counter:
    """Milliseconds by (instruction of the compiled program, name of the kernel).

    On a GPU these are the kernels of the first device's streams. On a CPU they are the events of
    each of XLA's threads; the work of libraries in other threads is missing.
    """
    times = collections.Counter()
    on_gpu = platform == "gpu"
    for plane in profile.planes:
        if not (plane.name == "/device:GPU:0" if on_gpu else plane.name.startswith("/host:")):
            continue
        for line in plane.lines:
            if on_gpu and not line.name.startswith("Stream"):
                continue  # It is a summary of the streams.
            for event in line.events:
                instruction = dict(event.stats).get("hlo_op")
                if on_gpu or instruction:
                    times[instruction, event.name] += event.duration_ns / 1e6
    return times


def summarize(times: collections.Counter, program: str, params: dict) -> dict:
    """Time by kind of kernel.

    A kernel that combines several operations counts as its last one, for which its instruction is
    named. If a GPU replays a graph of kernels, those of libraries are recognised only by their
    names.

    Args:
        times: from `kernel_times`.
        program: text of the compiled program.
        params: the network's parameters; only names and shapes are read.

    Returns:
        `milliseconds`, of all kernels, and `kinds`, largest first: `kind`, `milliseconds` and
        `share` of that sum, at most `KINDS` and `rest`.
    """
    weights = _weights(params)
    instructions = {}
    for line in program.splitlines():
        if match := _INSTRUCTION.match(line):
            # The name of a kernel that XLA wrote is that of its instruction, without punctuation.
            for name in (match["name"], re.sub(r"\W", "_", match["name"])):
                instructions[name] = match
    totals = collections.Counter()
    for (instruction, kernel), milliseconds in times.items():
        match = instructions.get(kernel) or instructions.get(instruction)
        contains = match is not None and match["operation"] in _CONTAINERS
        if contains and instruction == kernel:
            continue  # The trace has it and its content.
        if match is None or contains:
            kind = next((kind for part, kind in _LIBRARIES.items() if part in kernel), "unknown")
        else:
            kind = _kind(match["path"], match["result"], weights)
        totals[kind] += milliseconds
    whole = sum(totals.values())
    largest = totals.most_common(KINDS)
    if len(totals) > KINDS:
        largest.append(("rest", whole - sum(milliseconds for _, milliseconds in largest)))
    return {
        "milliseconds": whole,
        "kinds": [
            {"kind": kind, "milliseconds": milliseconds, "share": milliseconds / whole}
            for kind, milliseconds in largest
        ],
    }


def _weights(params: dict) -> dict[str, set[tuple[int, ...]]]:
    """`_extents` of the matrices and kernels of modules by name; many are empty."""
    weights = collections.defaultdict(set)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *modules, _ = (key.key for key in path)
        for module in modules:
            weights[module].update(())
        if np.ndim(leaf) > 1:
            weights[modules[-1]].add(_extents(np.shape(leaf)))
        if np.ndim(leaf) == 4:  # Its gradient by tiles is 16 matrices.
            weights[modules[-1]].add(_extents(np.shape(leaf)[2:]))
    return dict(weights)


def _kind(path: str | None, result: str, weights: dict[str, set[tuple[int, ...]]]) -> str:
    """The kind of an operation of a training step.

    Args:
        path: its name in JAX, `jit(step)/transpose(jvp(PMM.training))/trunk/layer1_0/conv2/mul`, or
            None if the compiler dropped the name.
        result: its type, `f32[64,64,3,3]{3,2,1,0}`, or a tuple of types.
        weights: `_extents` of the matrices and kernels of each of the network's modules.
    """
    shapes = re.findall(r"\[([\d,]+)\]", result)
    results = {_extents(map(int, shape.split(","))) for shape in shapes}
    if path is None:
        # XLA rewrites some convolutions, including the gradients of kernels.
        kernels = {shape for name in weights if "conv" in name for shape in weights[name]}
        return "convolution, weight gradient" if results & kernels else "without a name"
    if len(re.findall(r"jvp\(\w", path)) > 1:
        return "Grad-CAM"  # a gradient inside the function that the step differentiates
    if "jvp(" not in path:
        return "augmentation, optimizer"
    modules = [part for part in path.split("/") if part in weights]
    if not modules:
        return "losses, mixing"
    name = modules[-1]
    kind = next((kind for part, kind in _MODULES.items() if part in name), name)
    if "transpose(" not in path:
        return f"{kind}, forward"
    return f"{kind}, weight gradient" if results & weights[name] else f"{kind}, backward"


def _extents(shape: Iterable[int]) -> tuple[int, ...]:
    """A shape, independent of the order of its axes."""
    return tuple(sorted(size for size in shape if size > 1))
