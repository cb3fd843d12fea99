"""Weights of other programs: ImageNet ResNets for trunks, and checkpoints of the papers' authors.

`reid-jax weights FILE OUT` converts a file. `--config.model.pretrained=FILE` starts a run from a
ResNet, converted or not.
"""

from reid_jax.weights.trunks import Trunk, check_fits, read_trunk, write_trunk
from reid_jax.weights.workdirs import write_workdir

__all__ = ["Trunk", "check_fits", "read_trunk", "write_trunk", "write_workdir"]
