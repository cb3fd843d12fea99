"""The weights that a run starts from if it does not resume from a checkpoint."""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from reid_jax import models
from reid_jax.recipe import ModelConfig
from reid_jax.runs.checkpoint_items import can_be_resumed
from reid_jax.runs.workdir import CHECKPOINTS
from reid_jax.runtime import hosts
from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import say, shown
from reid_jax.weights.trunks import Trunk, check_fits, read_trunk


def initial_trunk(config: ModelConfig, workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the trunk's variables from the file `model.pretrained`, and report the file.

    Each of several hosts reads its own file, and all files must be equal.

    Args:
        config: the `model` part of a recipe.
        workdir: the run's folder, which may not exist yet.

    Returns:
        {"params", "batch_stats"}, float32. None if no file is set, or if the run resumes from a
        checkpoint, which holds the trunk: then the file is not needed any more.

    Raises:
        OSError, ImportError: the file is missing, cannot be read or needs PyTorch. The message
            names it.
        ValueError: its trunk is not the recipe's; or the workdir holds only weights, from which no
            run can resume.
    """
    resumed = hosts.from_first(lambda: can_be_resumed(pathlib.Path(workdir) / CHECKPOINTS))
    if resumed or not config.pretrained:
        return None

    path = local_path(config.pretrained, "model.pretrained")

    def read() -> Trunk:
        try:
            trunk = read_trunk(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise FileNotFoundError(
                f"model.pretrained is {shown(path)}, but there is no such file"
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
    """A digest of the numbers, because different files may hold the same weights."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten_dict(variables, sep="/").items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
