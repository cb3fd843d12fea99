"""Networks: Linen modules with two faces and no knowledge of datasets or optimizers.

`network(images)` is inference: normalised images (B, H, W, 3) to one descriptor per image, (B, D)
float32. `network.training(images, labels, key)` is training: it returns a tuple of `StageOutput`,
and the trainer sums the losses of its items. `network.gradcams(images)` returns evidence maps for
figures, (B, stages, h, w); `network.stage_names` are the names of the stages in these figures. Only
HBFP-Net has `network.class_activations(images, classes)`: class activation maps without and with
BFP, (B, 2, stages, h, w). `network.start(variables)` turns initialised variables into those that a
run starts with. `network.check(image_size)` raises if settings contradict each other.
"""

from typing import Any

import jax.numpy as jnp

from reid_jax.choices import DTYPES
from reid_jax.models.baseline import Baseline
from reid_jax.models.bdb import BDB
from reid_jax.models.hbfp import HBFP
from reid_jax.models.heads import StageOutput
from reid_jax.models.network import Network
from reid_jax.models.pmm import PMM
from reid_jax.models.resnet import BLOCKS, ResNet
from reid_jax.recipe import ModelConfig, Section

__all__ = [
    "BDB",
    "HBFP",
    "NETWORKS",
    "PMM",
    "Baseline",
    "Network",
    "ResNet",
    "StageOutput",
    "create",
]

NETWORKS = {"baseline": Baseline, "bdb": BDB, "pmm": PMM, "hbfp": HBFP}


def create(config: ModelConfig, num_classes: int, axis_name: str | None = None) -> Network:
    """Create the network that `config`, the `model` part of a recipe, describes.

    Args:
        config: a ConfigDict with `name`, `dtype`, `trunk` (attributes of `ResNet`) and the
            network's own leaves. `pretrained` is ignored here; the trainer reads it.
        num_classes: training identities.
        axis_name: the pmapped axis whose devices share a batch, or None.

    Raises:
        ValueError: an unknown name, dtype or kind of block.
    """
    settings = _hashable(config)
    settings.pop("pretrained", None)
    name, dtype, trunk = settings.pop("name"), settings.pop("dtype"), settings.pop("trunk")
    if name not in NETWORKS:
        raise ValueError(f"model.name is {name!r}; it must be one of {sorted(NETWORKS)}")
    if dtype not in DTYPES:
        raise ValueError(f"model.dtype is {dtype!r}; it must be one of {DTYPES}")
    common: dict[str, Any] = {"dtype": jnp.dtype(dtype), "axis_name": axis_name}
    trunk = ResNet(**_hashable(trunk), **common)
    if trunk.block not in BLOCKS:
        raise ValueError(f"model.trunk.block is {trunk.block!r}; it must be one of {tuple(BLOCKS)}")
    return NETWORKS[name](num_classes=num_classes, trunk=trunk, **settings, **common)


def _hashable(section: Section) -> dict[str, Any]:
    """The leaves of a section, with tuples for lists, which have no hash."""
    return {
        name: tuple(leaf) if isinstance(leaf, list) else leaf
        for name, leaf in dict(section).items()
    }
