"""Weights of others: ImageNet ResNets for trunks, and checkpoints of the authors' programs.

`python -m reid_jax.pretrained FILE OUT` converts a file. `--config.model.pretrained=FILE` starts a
run from a ResNet, converted or not.
"""

from reid_jax.pretrained.runs import write_workdir
from reid_jax.pretrained.trunks import Trunk, check_fits, read_trunk, write_trunk

__all__ = ["Trunk", "check_fits", "read_trunk", "write_trunk", "write_workdir"]
