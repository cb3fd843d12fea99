"""How old the figures are: `python -m benchmarks.age`, from the repository root of a clone.

Prints, for each JSON of `benchmarks/results`, the commit that it was measured at, and how many
later commits change the code that it measured. Such figures are not wrong, but may no longer hold:
run the JSON's `command` again. Files older than this script name the commit that published them.
A JSON without `commit`, or with one that the clone does not have, is an error.
"""

import json
import pathlib
import sys

from benchmarks import output

RESULTS = output.ROOT / "benchmarks" / "results"

_LEARNING = [
    *("reid_jax/models", "reid_jax/training", "reid_jax/losses.py", "reid_jax/mixing.py"),
    *("reid_jax/gradcam.py", "reid_jax/schedules.py"),
]
_TRIALS = [*_LEARNING, "reid_jax/data", "configs"]
_MEMORY = ["reid_jax/runtime/allocator.py", "reid_jax/runtime/gaps.py"]
_STEP = [
    *(*_LEARNING, *_MEMORY, "reid_jax/data/augment.py", "benchmarks/networks.py"),
    *("benchmarks/torch_networks.py", "benchmarks/torch_layers.py"),
]
_GALLERIES = ["reid_jax/gallery*.py", "reid_jax/evaluation", "benchmarks/engines.py"]
_INFERENCE = [
    *("reid_jax/inference.py", "reid_jax/network_on_devices.py", "reid_jax/models"),
    *("reid_jax/evaluation/descriptors.py", "reid_jax/data/batch_sizes.py"),
    *("reid_jax/data/image_like.py", "reid_jax/export/onnx.py", *_MEMORY),
    *("benchmarks/torch_networks.py", "benchmarks/torch_layers.py"),
]
#: The code that each JSON measures, in addition to the script of its name.
MEASURED = {
    "baseline_cpu": _TRIALS,
    "cuhk03_h100": _TRIALS,
    "cuhk03_half": _TRIALS,
    "cuhk03_half_evaluations": [*_TRIALS, "reid_jax/evaluation"],
    "gallery": _GALLERIES,
    "gallery_milvus": [*_GALLERIES, "benchmarks/gallery.py"],
    "gallery_million": [*_GALLERIES, "benchmarks/gallery.py"],
    "gallery_server": [*_GALLERIES, "benchmarks/gallery.py"],
    "gpu": [*_STEP, "benchmarks/step.py"],
    "gpu_descriptors": [*_INFERENCE, "benchmarks/descriptors.py"],
    "hbfp_cpu": _TRIALS,
    "inference": _INFERENCE,
    "inference_avx2": [*_INFERENCE, "benchmarks/inference.py"],
    "inference_small": [*_INFERENCE, "benchmarks/inference.py"],
    "input": ["reid_jax/data", "benchmarks/pil_loaders.py"],
    "input_msmt17": ["reid_jax/data", "benchmarks/pil_loaders.py", "benchmarks/input.py"],
    "memory": [*_STEP, "reid_jax/data", "reid_jax/evaluation"],
    "networks": _STEP,
    "pmm_cpu": _TRIALS,
    "ranking": ["reid_jax/evaluation", "benchmarks/peers.py"],
    "resnet18_cpu": _TRIALS,
    "start": ["reid_jax"],
    "step": [*_STEP, "reid_jax/data"],
    "step_avx2": [*_STEP, "reid_jax/data", "benchmarks/step.py"],
    "strong_cpu": _TRIALS,
    "strong_trials": _TRIALS,
    "trials": _TRIALS,
}


def age(path: pathlib.Path) -> tuple[str, str, int]:
    """The commit of a JSON, its day, and the number of later commits to the measured code.

    Raises:
        ValueError: the JSON names no commit, or one that is unknown; or `MEASURED` lacks it.
    """
    commit = json.loads(path.read_text()).get("commit")
    if not isinstance(commit, str):
        raise ValueError(f"{path} has no `commit`; add the commit that it was measured at")
    if path.stem not in MEASURED:
        raise ValueError(f"{path} is not in MEASURED of benchmarks/age.py; add what it measures")
    day = output.git("log", "-1", "--format=%cs", f"{commit}^{{commit}}", "--")
    if day is None:
        raise ValueError(f"{path} names the commit {commit!r}, which this clone does not have")
    paths = [f"benchmarks/{path.stem}.py", *MEASURED[path.stem]]
    later = output.git("rev-list", "--count", f"{commit}..HEAD", "--", *paths)
    return commit, day, int(later or 0)


def main() -> None:
    """Print the table."""
    try:
        ages = [(path.name, *age(path)) for path in sorted(RESULTS.glob("*.json"))]
    except ValueError as error:
        sys.exit(str(error))
    rows = [(name, commit[:9], day, str(later)) for name, commit, day, later in ages]
    print(output.table(("figures", "commit", "its day", "later commits"), rows))


if __name__ == "__main__":
    main()
