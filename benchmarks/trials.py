"""Collects short training runs into one JSON file, with settings, losses and scores.

    python benchmarks/trials.py runs/neck runs/warmup --output=benchmarks/results/trials.json

For experiments that decide a recipe. The file has the settings in which each run differs from the
others, its logged losses and its evaluations. Only the last part of each path is kept.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import output
from reid_jax.runs.metrics import read_metrics
from reid_jax.runtime.files import write_text_atomically

# Leaves whose values are paths.
_PATHS = ("data.root", "model.pretrained")
_LOGGED = ("step", "epoch", "lr", "loss", "images_per_second")


def collect(folders: Sequence[pathlib.Path]) -> dict[str, Any]:
    """The runs in `folders`, for JSON.

    Returns:
        `settings`, the leaves that all runs share, by dotted name; and `runs`, for each run its
        `name`, its other `settings`, its `log` (step, epoch, lr, losses, images/s, accuracies and
        shares of ordered triplets) and its `evaluations` (step, epoch, Rank-1, mAP).

    Raises:
        FileNotFoundError: a folder holds no run.
    """
    recipes = [_leaves(_read_config(folder)) for folder in folders]
    names = {name for recipe in recipes for name in recipe}
    shared = {
        name
        for name in names
        if all(name in recipe and recipe[name] == recipes[0].get(name) for recipe in recipes)
    }
    return {
        "settings": {name: recipes[0][name] for name in sorted(shared)},
        "runs": [
            {
                "name": folder.name,
                "settings": {k: v for k, v in sorted(recipe.items()) if k not in shared},
                **_curves(read_metrics(folder)),
            }
            for folder, recipe in zip(folders, recipes, strict=True)
        ],
    }


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]


def _leaves(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    found = {}
    for key, value in section.items():
        name = prefix + key
        if isinstance(value, dict):
            found |= _leaves(value, f"{name}.")
        else:
            found[name] = pathlib.PurePath(value).name if name in _PATHS else value
    return found


def _curves(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    log = [
        {
            key: float(f"{value:.5g}")
            for key, value in record.items()
            if key in _LOGGED or key.startswith(("loss/", "accuracy_", "ordered_"))
        }
        for record in records
        if record["kind"] == "train"
    ]
    evaluations = [
        {key: float(f"{record[key]:.5g}") for key in ("step", "epoch", "Rank-1", "mAP")}
        for record in records
        if record["kind"] == "eval"
    ]
    return {"log": log, "evaluations": evaluations}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the JSON file that the command line names."""
    parser = argparse.ArgumentParser(description="Collects short training runs into one JSON file.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path, help="a workdir")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    found = collect(options.runs)
    settings = {"runs": [folder.name for folder in options.runs]}
    record = output.record("benchmarks/trials.py", settings, jax.devices()[0], found["runs"])
    text = json.dumps(record | {"shared": found["settings"]}, indent=1, ensure_ascii=False)
    write_text_atomically(options.output, text + "\n")
    print(f"{len(options.runs)} runs in {options.output}")


if __name__ == "__main__":
    main()
