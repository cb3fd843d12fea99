"""The trunk under torchvision's and timm's names, which are equal for plain ResNets.

IBN-a's norms (Pan et al., ECCV 2018) are named as its authors name them: `bn1.IN` and `bn1.BN`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from reid_jax.models.resnet import BLOCKS, ResNet
from reid_jax.weights.tensors import Tensor, affine, batch_norm, kernel

# The classifier over ImageNet's classes, which a trunk does not use.
CLASSIFIER = ("fc.weight", "fc.bias")

_TITLES: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "ResNet-18",
    ("basic", (3, 4, 6, 3)): "ResNet-34",
    ("bottleneck", (3, 4, 6, 3)): "ResNet-50",
    ("bottleneck", (3, 4, 23, 3)): "ResNet-101",
    ("bottleneck", (3, 8, 36, 3)): "ResNet-152",
}
_WIDTH = 64  # the width of all of them
_BASE_WIDTH = 64  # the base width of all except Wide ResNets


class Structure(NamedTuple):
    """The leaves of `model.trunk` that determine the shapes of a trunk's weights, by name."""

    block: str = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = _WIDTH
    ibn: bool = False
    stem_width: int = 0  # 0 for `width`
    base_width: int = _BASE_WIDTH
    # Shapes do not show which convolution has the stride: None if the file does not record it.
    stride_in_1x1: bool | None = False

    @property
    def title(self) -> str:
        """The usual name, such as `ResNet-50`."""
        known = _TITLES.get((self.block, self.depths))
        title = known or f"ResNet of {self.block} blocks {self.depths}"
        return (
            title
            + ("-IBN-a" if self.ibn else "")
            + (f" of width {self.width}" if self.width != _WIDTH else "")
            + (f", stem of {self.stem_width}" if self.stem_width else "")
            + (f", base width {self.base_width}" if self.base_width != _BASE_WIDTH else "")
            + (", stride in the first 1x1" if self.stride_in_1x1 else "")
        )


RESNET50 = Structure()  # the default of all recipes except the small ones


def structure_of(trunk: ResNet) -> Structure:
    """The structure of a network's trunk."""
    return Structure(
        block=trunk.block,
        depths=tuple(trunk.depths),
        width=trunk.width,
        ibn=trunk.ibn,
        stem_width=0 if trunk.stem_width == trunk.width else trunk.stem_width,
        base_width=trunk.base_width,
        stride_in_1x1=trunk.stride_in_1x1,
    )


def recognise(names: Iterable[str]) -> bool:
    """Whether some names are a ResNet's. `tensors` then checks whether all of them fit."""
    return any(re.match(r"layer[1-4]\.\d+\.", name) for name in names)


def infer(arrays: Mapping[str, np.ndarray]) -> Structure:
    """The structure that matches names and shapes best; `tensors` then checks every shape.

    Names and shapes do not show which convolution of a bottleneck has the stride.
    """
    depths = [1, 1, 1, 1]
    for name in arrays:
        # Three digits at most: a name in an untrusted file must not create a huge list.
        if match := re.match(r"layer([1-4])\.(\d{1,3})\.", name):
            stage = int(match[1]) - 1
            depths[stage] = max(depths[stage], int(match[2]) + 1)

    def outputs(*names: str) -> int:
        """Outputs of the first of these layers whose weight is there and not empty; otherwise 0."""
        shapes = [arrays[f"{name}.weight"].shape for name in names if f"{name}.weight" in arrays]
        return next((shape[0] for shape in shapes if shape and shape[0]), 0)

    basic = not any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in arrays)
    stem = outputs("conv1", "bn1") or _WIDTH
    if basic:
        width = outputs("layer1.0.conv1", "layer1.0.conv2") or stem
        inner = width
    else:
        width = outputs("layer1.0.conv3", "layer1.0.downsample.0") // 4 or stem
        inner = outputs("layer1.0.conv2", "layer1.0.conv1") or width
    return Structure(
        block="basic" if basic else "bottleneck",
        depths=tuple(depths),
        width=width,
        ibn=any(".bn1.IN." in name for name in arrays),
        stem_width=0 if stem == width else stem,
        base_width=inner * _BASE_WIDTH // width or _BASE_WIDTH,
        stride_in_1x1=False if basic else None,
    )


def tensors(structure: Structure) -> Iterator[Tensor]:
    """All tensors of a ResNet without its classifier, with the variables of the trunk only."""
    width, expansion = structure.width, BLOCKS[structure.block].expansion
    channels = structure.stem_width or width
    yield from kernel("conv1", "conv1", channels, 3, 7, 7)
    yield from batch_norm("bn1", "bn1", channels)
    for stage, depth in enumerate(structure.depths, 1):
        for number in range(depth):
            names = f"layer{stage}.{number}", f"layer{stage}_{number}"
            yield from block(structure, stage, channels, *names)
            channels = width * 2 ** (stage - 1) * expansion


def block(
    structure: Structure, stage: int, channels: int, name: str, variable: str
) -> Iterator[Tensor]:
    """The tensors of a block as `ResNet.block_of` creates it, for maps with `channels` channels."""
    features = structure.width * 2 ** (stage - 1)
    out = features * BLOCKS[structure.block].expansion
    inner = features * structure.base_width // _BASE_WIDTH
    convolutions = {
        "bottleneck": [(inner, channels, 1), (inner, inner, 3), (out, inner, 1)],
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
