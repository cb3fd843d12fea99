"""Workdirs for checkpoints of other programs: they hold only weights, for `reid-jax eval`."""

import os
import pathlib

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from reid_jax import models
from reid_jax.recipe import typed
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.settings import check
from reid_jax.runs.workdir import CHECKPOINTS, write_run
from reid_jax.runtime.files import new_folder
from reid_jax.runtime.messages import shown
from reid_jax.weights import authors
from reid_jax.weights.files import WeightsFile
from reid_jax.weights.tensors import account, shapes_of, variables


def write_workdir(
    file: WeightsFile, program: str, config: ConfigDict, out: str | os.PathLike[str]
) -> tuple[authors.Sizes, int]:
    """Write the workdir of a program's checkpoint, completely or not at all.

    Args:
        file: the checkpoint.
        program: the program that wrote it, from `authors.recognise`.
        config: a recipe of the same network. Its depths, widths and dimensions are set to those of
            the checkpoint.
        out: the workdir: a folder that does not exist or is empty.

    Returns:
        The sizes of the checkpoint, and the number of parameters.

    Raises:
        OSError: `out` is not empty or cannot be written.
        ValueError: the tensors are not those of the network (the message lists them), or the recipe
            is of another network or contradicts them.
    """
    with new_folder(out) as folder:
        return _write(file, program, config, folder)


def _write(
    file: WeightsFile, program: str, config: ConfigDict, folder: pathlib.Path
) -> tuple[authors.Sizes, int]:
    """Write into an empty folder, as `write_workdir`."""
    if (name := typed(config).model.name) != program:
        raise ValueError(
            f"{shown(file.path)} is a checkpoint of {program.upper()}, but the recipe's model.name "
            f"is {name!r}: pass another --config"
        )
    sizes = authors.infer(program, file.arrays)
    title = f"the authors' {program.upper()} over a {sizes.trunk.title}"
    tree = variables(file.arrays, authors.tensors(program, sizes), title, file.path)
    if sizes.num_classes < 2:
        raise ValueError(f"{shown(file.path)} has a classifier of only one identity")

    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(authors.leaves(program, sizes))
    recipe = typed(config)
    check(recipe)
    network = models.create(recipe.model, sizes.num_classes)
    image = jnp.zeros((1, *recipe.data.image_size, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    account(flatten_dict(tree, sep="/"), shapes_of(shapes), "the recipe's network", file.path)

    source = {"program": program, "file": file.path.name, "sha256": file.sha256}
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        checkpoints.save_model(tree)
    write_run(folder, recipe, sizes.num_classes, source=source | {"epoch": file.epoch})
    return sizes, sum(x.size for x in jax.tree.leaves(tree["params"]))
