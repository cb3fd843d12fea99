"""What weights a run starts from, where it does not go on from a checkpoint."""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from reid_jax import models
from reid_jax.runs.checkpoint_items import can_be_resumed
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime import hosts
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import say, shown
from reid_jax.weights.trunks import Trunk, check_fits, read_trunk


def initial_trunk(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The trunk's variables from the file `model.pretrained`; says which.

    Of several hosts each reads its own file, and all files must be alike.

    Args:
        config: the `model` part of a recipe.
        workdir: the run's folder, which need not exist.

    Returns:
        {"params", "batch_stats"}, float32. None where no file is named, or where there is a
        checkpoint to go on from: it has the trunk, and the file may be gone.

    Raises:
        OSError, ImportError: the file is missing, cannot be read or needs PyTorch; names it.
        ValueError: it holds no such trunk as the recipe has; or the workdir holds weights alone,
            which no run can go on from.
    """
    resumed = hosts.from_first(lambda: can_be_resumed(pathlib.Path(workdir) / CHECKPOINTS))
    if resumed or not config.pretrained:
        return None

    path = local_path(config.pretrained, "model.pretrained")

    def read() -> Trunk:
        try:
            trunk = read_trunk(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"model.pretrained is {shown(path)}, and there is no such file"
            ) from error
        check_fits(trunk, models.create(config, num_classes=2).trunk, path)
        return trunk

    trunk = hosts.together(read)
    if hosts.count() > 1:
        hosts.check_same("model.pretrained (SHA-256 of the weights)", _digest(trunk.variables))
    say(
        f"the trunk starts from {shown(path)}: {trunk.structure.title} of "
        f"{shown(trunk.source)}, SHA-256 {trunk.sha256[:12]}"
    )
    return trunk.variables


def _digest(variables: dict[str, Any]) -> str:
    """Of the numbers, for the same weights may be in other files."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten_dict(variables, sep="/").items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
