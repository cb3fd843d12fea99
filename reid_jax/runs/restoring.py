"""Restores the weights of a run's checkpoint, for an existing network."""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.models import Network
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime import hosts


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
        workdir: the run's folder.
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
        with Checkpoints(pathlib.Path(workdir) / CHECKPOINTS) as checkpoints:
            step = checkpoints.resolve(int(checkpoint) if str(checkpoint).isdigit() else checkpoint)
            return step, checkpoints.restore_model(shapes, step)

    step, variables = hosts.tree_from_first(hosts.together(read))
    return int(step), variables
