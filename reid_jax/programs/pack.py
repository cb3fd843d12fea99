"""Packs a run into one file to hand over, with a model card beside it."""

import contextlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from reid_jax import models
from reid_jax.programs.model_card import Facts, model_card
from reid_jax.recipe import DataConfig
from reid_jax.runs import packed_file
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.results import RUN_RESULTS
from reid_jax.runs.workdir import read_content, read_run
from reid_jax.runtime.files import local_path, replacing
from reid_jax.runtime.messages import say, shown
from reid_jax.weights.resnet import structure_of

_SUFFIX = ".safetensors"


def pack_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    checkpoint: str | int = "latest",
) -> None:
    """Write weights, recipe and results of a run into one file, and its model card.

    `reid_jax.load` and `--workdir` of eval, search and export read the file. The results are those
    of `eval/results.json` in the workdir, if it exists and is of the same step. Names of files and
    folders lose the folders that they are in.

    A packed run is always the same bytes, so a file that exists stays if it holds these, and is an
    error otherwise. No file is overwritten.

    Args:
        workdir: folder of a run; it is not changed.
        out: the file, which ends in `.safetensors`. Its folders are made. The card beside it has
            the same name with `.md`.
        checkpoint: `latest`, `best` by mAP, or a step.

    Raises:
        FileExistsError: one of the two files exists and has another content.
        OSError, ValueError: `out`, the run, its checkpoint or its results are bad.
    """
    workdir, out = local_path(workdir, "RUN"), pathlib.Path(local_path(out, "OUT"))
    if out.suffix != _SUFFIX:
        raise ValueError(f"OUT is {shown(out)}; it must end in {_SUFFIX}")
    if packed_file.is_packed(workdir):
        raise ValueError(f"RUN {shown(workdir)} is a file; it must be the folder of a run")
    config, num_classes = read_run(workdir)
    run, _ = read_content(workdir)
    size = config.data.image_size
    network = models.create(config.model, num_classes)
    network.check(size)
    step, variables = restore_variables(network, size, workdir, checkpoint)
    variables = jax.device_get(variables)

    packed = packed_file.PackedRun(
        step=step,
        run=_without_folders_of_recipe(run),
        trained_on=_trained_on(config.data)
        | {
            "identities": num_classes,
            "images": (run.get("train_images") or {}).get("count"),
        },
        results=_results(pathlib.Path(workdir, RUN_RESULTS), step),
        arrays=flatten_dict(variables, sep="/"),
    )
    image = jnp.zeros((1, *size, 3))
    facts = Facts(
        file=out.name,
        config=config,
        trunk=structure_of(network.trunk).title,
        dim=jax.eval_shape(network.apply, variables, image).shape[1],
        parameters=sum(np.size(x) for x in jax.tree.leaves(variables["params"])),
    )
    content = packed_file.to_bytes(packed)
    _write_new({out.with_suffix(".md"): model_card(packed, facts).encode(), out: content})
    size_of = f"{len(content) / 1e6:,.1f} MB"
    say(f"{config.model.name}, step {step} of {shown(workdir)}, in {shown(out)}: {size_of}")


def _trained_on(data: DataConfig) -> dict[str, Any]:
    """The layout and the folder of the training data; and of each dataset of `data.also`."""
    named = {"layout": data.layout, "folder": _name(data.root)}
    also = [map(_name, entry.split(":", 1)) for entry in data.also]
    others = [{"layout": layout, "folder": folder} for layout, folder in also]
    return named | ({"also": others} if others else {})


def _write_new(files: dict[pathlib.Path, bytes]) -> None:
    """Write those files that do not exist, all or none; keep those that are equal."""
    missing = []
    for path, data in files.items():
        if not os.path.lexists(path):
            missing.append(path)
        elif not path.is_file() or path.read_bytes() != data:
            raise FileExistsError(
                f"{shown(path)} exists with another content: choose another OUT, or remove it"
            )
    with contextlib.ExitStack() as stack:
        # All drafts are complete before the first gets its name.
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(replacing(path, unique=True)).write_bytes(files[path])


def _results(path: pathlib.Path, step: int) -> dict[str, Any] | None:
    """The results of an evaluation of a step; None if the file is missing or of another step."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        of_step = results["step"]
        for row in (results, *results.get("also", [])):
            if not all(isinstance(row.get(key, {}), dict) for key in ("dataset", "protocol")):
                raise TypeError("dataset and protocol are not objects")
    except (FileNotFoundError, NotADirectoryError):
        say(f"no results: {shown(path)} is missing; reid-jax eval writes it")
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{shown(path)} is damaged ({error!r}): run reid-jax eval again, or remove it"
        ) from error
    if of_step != step:
        say(
            f"no results: {shown(path)} is of step {of_step}, and the packed checkpoint of step "
            f"{step}; reid-jax eval --checkpoint={step} writes those"
        )
        return None
    return _without_folders(results)


def _without_folders(value: Any) -> Any:
    """Results in which each path is only its last name."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return _name(value) if isinstance(value, str) else value


def _without_folders_of_recipe(run: dict[str, Any]) -> dict[str, Any]:
    """A `run.json` in which each path is only its last name."""
    config = dict(run["config"])
    for section, leaf in (("data", "root"), ("model", "pretrained")):
        if config[section].get(leaf):
            config[section] = config[section] | {leaf: _name(config[section][leaf])}
    if config["data"].get("also"):
        also = [":".join(map(_name, entry.split(":", 1))) for entry in config["data"]["also"]]
        config["data"] = config["data"] | {"also": also}
    return run | {"config": config}


def _name(path: str) -> str:
    return os.path.basename(os.path.normpath(path)) if path else path
