"""The trunk under torchvision's and timm's names, which are alike for plain ResNets.

IBN-a's norms (Pan et al., ECCV 2018) are named as its authors name them: `bn1.IN` and `bn1.BN`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from reid_jax.models.resnet import BLOCKS, ResNet
from reid_jax.pretrained.names import Tensor, affine, batch_norm, kernel

# The classifier over ImageNet's classes, which a trunk has no use for.
CLASSIFIER = ("fc.weight", "fc.bias")

_TITLES = {
    ("basic", (2, 2, 2, 2)): "ResNet-18",
    ("basic", (3, 4, 6, 3)): "ResNet-34",
    ("bottleneck", (3, 4, 6, 3)): "ResNet-50",
    ("bottleneck", (3, 4, 23, 3)): "ResNet-101",
    ("bottleneck", (3, 8, 36, 3)): "ResNet-152",
}
_WIDTH = 64  # of all of them


class Structure(NamedTuple):
    """What of a trunk its weights depend on; the leaves of `model.trunk` of the same names."""

    block: str = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = _WIDTH
    ibn: bool = False

    @property
    def title(self) -> str:
        """What people call it: `ResNet-50`."""
        known = _TITLES.get((self.block, self.depths))
        title = known or f"ResNet of {self.block} blocks {self.depths}"
        return (
            title
            + ("-IBN-a" if self.ibn else "")
            + (f" of width {self.width}" if self.width != _WIDTH else "")
        )


RESNET50 = Structure()  # the default of all recipes but the small ones


def structure_of(trunk: ResNet) -> Structure:
    """That of a network's trunk."""
    return Structure(trunk.block, tuple(trunk.depths), trunk.width, trunk.ibn)


def recognise(names: Iterable[str]) -> bool:
    """Whether names have anything of a ResNet's; whether they fit, `tensors` tell."""
    return any(re.match(r"layer[1-4]\.\d+\.", name) for name in names)


def infer(arrays: Mapping[str, np.ndarray]) -> Structure:
    """The structure that names and shapes come closest to; whether they fit, `tensors` tell."""
    depths = [1, 1, 1, 1]
    for name in arrays:
        # Three digits: a name from others must not make an endless list.
        if match := re.match(r"layer([1-4])\.(\d{1,3})\.", name):
            stage = int(match[1]) - 1
            depths[stage] = max(depths[stage], int(match[2]) + 1)
    stems = [arrays[name].shape[:1] for name in ("conv1.weight", "bn1.weight") if name in arrays]
    width = next((shape[0] for shape in stems if shape and shape[0]), _WIDTH)
    basic = not any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in arrays)
    return Structure(
        block="basic" if basic else "bottleneck",
        depths=tuple(depths),
        width=width,
        ibn=any(".bn1.IN." in name for name in arrays),
    )


def tensors(structure: Structure) -> Iterator[Tensor]:
    """All tensors of a ResNet without its classifier; variables as those of the trunk alone."""
    width, expansion = structure.width, BLOCKS[structure.block].expansion
    yield from kernel("conv1", "conv1", width, 3, 7, 7)
    yield from batch_norm("bn1", "bn1", width)
    channels = width
    for stage, depth in enumerate(structure.depths, 1):
        for number in range(depth):
            names = f"layer{stage}.{number}", f"layer{stage}_{number}"
            yield from block(structure, stage, channels, *names)
            channels = width * 2 ** (stage - 1) * expansion


def block(
    structure: Structure, stage: int, channels: int, name: str, variable: str
) -> Iterator[Tensor]:
    """A block as `ResNet.block_of` makes it, for maps of so many channels."""
    features = structure.width * 2 ** (stage - 1)
    out = features * BLOCKS[structure.block].expansion
    convolutions = {
        "bottleneck": [(features, channels, 1), (features, features, 3), (out, features, 1)],
        "basic": [(features, channels, 3), (out, features, 3)],
    }[structure.block]
    for i, (outputs, inputs, size) in enumerate(convolutions, 1):
        yield from kernel(f"{name}.conv{i}", f"{variable}/conv{i}", outputs, inputs, size, size)
        if i == 1 and structure.ibn and stage < 4:
            half = outputs // 2
            yield from affine(f"{name}.bn1.IN", f"{variable}/bn1/instance", half)
            yield from batch_norm(f"{name}.bn1.BN", f"{variable}/bn1/batch", outputs - half)
        else:
            yield from batch_norm(f"{name}.bn{i}", f"{variable}/bn{i}", outputs)
    if channels != out:
        yield from kernel(
            f"{name}.downsample.0", f"{variable}/downsample_conv", out, channels, 1, 1
        )
        yield from batch_norm(f"{name}.downsample.1", f"{variable}/downsample_bn", out)
