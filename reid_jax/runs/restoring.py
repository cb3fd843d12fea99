"""Restores the weights of a run's checkpoint, for an existing network."""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from reid_jax.models import Network
from reid_jax.runs import packed_file
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime import hosts
from reid_jax.runtime.messages import shown


def restore_variables(
    network: Network,
    image_size: tuple[int, int],
    workdir: str | os.PathLike[str],
    checkpoint: str | int = "latest",
) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint. With several hosts, only the first reads it and sends it to the others.

    Args:
        network: the network of the run.
        image_size: (H, W), pixels.
        workdir: the run's folder, or a file of `reid-jax pack`, which holds one checkpoint.
        checkpoint: `latest`, `best`, or a step.

    Returns:
        The step that `checkpoint` refers to, and {"params", "batch_stats"} of that step.

    Raises:
        FileNotFoundError, OSError, ValueError: see `Checkpoints.restore_model`.
    """
    image = jnp.zeros((1, *image_size, 3))
    shapes = dict(jax.eval_shape(network.init, jax.random.key(0), image))

    def read():
        if not hosts.is_first():
            return 0, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        if packed_file.is_packed(workdir):
            return _from_packed(workdir, shapes, checkpoint)
        # Here, because a packed file does not need Orbax, which takes half a second to import.
        from reid_jax.runs.checkpoints import Checkpoints

        with Checkpoints(pathlib.Path(workdir) / CHECKPOINTS) as checkpoints:
            is_step = str(checkpoint).isdecimal()
            step = checkpoints.resolve(int(checkpoint) if is_step else checkpoint)
            return step, checkpoints.restore_model(shapes, step)

    step, variables = hosts.tree_from_first(hosts.together(read))
    return int(step), variables


def _from_packed(
    path: str | os.PathLike[str], shapes: dict[str, Any], checkpoint: str | int
) -> tuple[int, dict[str, Any]]:
    """The step and the variables of a packed file."""
    packed = packed_file.read(path)
    if str(checkpoint) not in ("latest", "best", str(packed.step)):
        raise FileNotFoundError(
            f"no checkpoint {str(checkpoint)!r} in {shown(path)}, which holds only step "
            f"{packed.step}: leave out --checkpoint"
        )
    wanted = {name: _described(leaf) for name, leaf in flatten_dict(shapes, sep="/").items()}
    found = {name: _described(array) for name, array in packed.arrays.items()}
    for name in dict.fromkeys([*wanted, *found]):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"the weights in {shown(path)} are not those of its recipe's network: {name} is "
                f"{found.get(name, 'absent')} in the file and {wanted.get(name, 'absent')} in the "
                "network"
            )
    return packed.step, unflatten_dict(packed.arrays, sep="/")


def _described(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
