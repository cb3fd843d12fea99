"""The layer names of Caffe's ResNets, and the convolutions of a trunk that they belong to.

He et al. (2016) published networks with names like `res2a_branch2b`. The program pynetbuilder,
which made Yahoo's open_nsfw, names the same layer `conv_stage0_block0_branch2b`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from reid_jax.weights import resnet
from reid_jax.weights.resnet import Structure

# The ends of the names of a block's convolutions, and torchvision's names of these.
_MODULES = {"1": "downsample.0", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_BRANCHES = {module: branch for branch, module in _MODULES.items()}


class Place(NamedTuple):
    """The place of a convolution inside a block."""

    stage: int  # 1 for res2, ..., 4 for res5
    number: int  # number of the block in its stage, from 0
    branch: str  # a key of `_MODULES`
    numbered: bool = False  # True for names like `res4b2`, False for names like `res4c`


class Style(NamedTuple):
    """How a program names layers, and the mean that it subtracts from images."""

    stem: tuple[str, str, str]  # the first convolution, its batch norm and its scale
    prefixes: tuple[str, str, str]  # prefixes of the names of these three layers in blocks
    parse: Callable[[str], Place | None]  # parses the name of a convolution in a block
    spell: Callable[[Place], str]  # the inverse, without the prefix
    mean: tuple[float, float, float]  # mean of blue, green and red in 0..255


class Unit(NamedTuple):
    """A convolution and its norm, which are three layers in Caffe."""

    layers: tuple[str, str, str]  # names of convolution, batch norm and scale
    block: str  # `layer1.0`, torchvision's name; empty for the stem
    convolution: str  # `layer1.0.conv1`
    norm: str  # `layer1.0.bn1`
    shape: tuple[int, ...]  # of the kernel, (O, I, h, w)


def style_of(names: Iterable[str]) -> Style | None:
    """The style of a network whose layers have such names; None if it is unknown."""
    names = list(names)
    return next((style for style in STYLES if any(map(style.parse, names))), None)


def infer(kernels: Mapping[str, np.ndarray], style: Style) -> tuple[Structure, set[int]]:
    """The structure that matches the layers best.

    Args:
        kernels: the first array of each layer, by the layer's name.
        style: the style of the names.

    Returns:
        The structure, and the stages whose blocks have numbers in their names.
    """
    found, numbered = {}, set()
    if style.stem[0] in kernels:
        found["conv1.weight"] = kernels[style.stem[0]]
    for name, kernel in kernels.items():
        if place := style.parse(name):
            block = f"layer{place.stage}.{place.number}"
            found[f"{block}.{_MODULES[place.branch]}.weight"] = kernel
            if place.numbered:
                numbered.add(place.stage)
    return resnet.infer(found), numbered


def units_of(structure: Structure, style: Style, numbered: set[int]) -> Iterator[Unit]:
    """All convolutions of a ResNet, with the names of their layers in a style."""
    for tensor in resnet.tensors(structure):
        if len(tensor.shape) == 1:
            continue  # It belongs to a norm.
        convolution = tensor.name.removesuffix(".weight")
        norm = convolution.replace("conv", "bn").replace("downsample.0", "downsample.1")
        match = re.fullmatch(r"(layer(\d)\.(\d+))\.(.+)", convolution)
        if match is None:
            yield Unit(style.stem, "", convolution, norm, tensor.shape)
            continue
        block, stage, number, module = match.groups()
        place = Place(int(stage), int(number), _BRANCHES[module], int(stage) in numbered)
        first, second, third = (prefix + style.spell(place) for prefix in style.prefixes)
        yield Unit((first, second, third), block, convolution, norm, tensor.shape)


def _parse_original(name: str) -> Place | None:
    """Parse `res4c_branch2a`, or `res4b2_branch2a` in long stages. First blocks are `res4a`."""
    match = re.fullmatch(r"res([2-5])(?:([a-z])|b(\d{1,3}))_branch(1|2[abc])", name)
    if match is None:
        return None
    stage, letter, number, branch = match.groups()
    if letter:
        return Place(int(stage) - 1, ord(letter) - ord("a"), branch)
    return Place(int(stage) - 1, int(number), branch, numbered=True)


def _spell_original(place: Place) -> str:
    block = chr(ord("a") + place.number)
    if place.number and place.numbered:
        block = f"b{place.number}"
    return f"{place.stage + 1}{block}_branch{place.branch}"


def _parse_pynetbuilder(name: str) -> Place | None:
    """Parse `conv_stage2_block2_branch2a` and `conv_stage2_block0_proj_shortcut`."""
    match = re.fullmatch(r"conv_stage([0-3])_block(\d{1,3})_(?:proj_shortcut|branch(2[abc]))", name)
    if match is None:
        return None
    return Place(int(match[1]) + 1, int(match[2]), match[3] or "1")


def _spell_pynetbuilder(place: Place) -> str:
    branch = "proj_shortcut" if place.branch == "1" else f"branch{place.branch}"
    return f"_stage{place.stage - 1}_block{place.number}_{branch}"


ORIGINAL = Style(
    stem=("conv1", "bn_conv1", "scale_conv1"),
    prefixes=("res", "bn", "scale"),
    parse=_parse_original,
    spell=_spell_original,
    # The channel means of the picture that the networks subtract.
    mean=(103.0626238, 115.90288257, 123.15163084),
)
PYNETBUILDER = Style(
    stem=("conv_1", "bn_1", "scale_1"),
    prefixes=("conv", "bn", "scale"),
    parse=_parse_pynetbuilder,
    spell=_spell_pynetbuilder,
    mean=(104.0, 117.0, 123.0),
)
STYLES = (ORIGINAL, PYNETBUILDER)
