"""Checkpoints of the PMM authors' program and of BDB's, which it builds on.

Both split a ResNet-50 into `backbone` and `res_part`, and number the layers of the first. A head is
a reduction (1x1 convolution or linear map; batch norm; ReLU) and a classifier.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from reid_jax.models.resnet import BLOCKS
from reid_jax.weights import resnet
from reid_jax.weights.resnet import Structure
from reid_jax.weights.tensors import Tensor, batch_norm, linear

# Torchvision's names of the parts of the trunk, and the names in these programs.
_TRUNK = {
    "conv1": "backbone.0",
    "bn1": "backbone.1",
    "layer1": "backbone.4",
    "layer2": "backbone.5",
    "layer3": "backbone.6",
    "layer4": "res_part",
}

# Reduction and classifier of each head, in the order of the descriptor.
_HEADS = {
    "pmm": (
        ("global_reduction", "global_softmax"),
        ("reduction1", "softmax1"),
        ("reduction2", "softmax2"),
    ),
    "bdb": (("global_reduction", "global_softmax"), ("reduction", "softmax")),
}


class Sizes(NamedTuple):
    """The sizes that determine the shapes of a network's variables."""

    trunk: Structure
    dims: tuple[int, ...]  # the embedding size of each head
    num_classes: int


def recognise(names: Iterable[str]) -> str | None:
    """The network whose checkpoints have such names: `pmm`, `bdb`, or None for neither."""
    parts = {name.partition(".")[0] for name in names}
    if not parts & {"res_part", "res_part2", "global_reduction"}:
        return None
    return "pmm" if parts & {"reduction1", "reduction2", "softmax1", "softmax2"} else "bdb"


def infer(program: str, arrays: Mapping[str, np.ndarray]) -> Sizes:
    """The sizes that match names and shapes best. `tensors` then checks whether they fit."""
    trunk = {}
    for ours, theirs in _TRUNK.items():
        for name, array in arrays.items():
            if name.startswith(f"{theirs}."):
                trunk[ours + name.removeprefix(theirs)] = array

    def outputs(*names: str) -> int | None:
        shapes = [arrays[name].shape for name in names if name in arrays]
        return next((shape[0] for shape in shapes if shape), None)

    heads = _HEADS[program]
    dims = [outputs(f"{reduction}.0.weight") for reduction, _ in heads]
    if program == "pmm":  # All heads have the same size.
        dims = [next((dim for dim in dims if dim), None)] * len(heads)
    classes = outputs(*(f"{classifier}.weight" for _, classifier in heads))
    structure = resnet.infer(trunk)._replace(stride_in_1x1=False)  # Both build on torchvision's.
    return Sizes(structure, tuple(dim or 512 for dim in dims), classes or 0)


def tensors(program: str, sizes: Sizes) -> Iterator[Tensor]:
    """All tensors of a checkpoint, with the variables that they become in the network."""
    for tensor in resnet.tensors(sizes.trunk):
        part, dot, rest = tensor.name.partition(".")
        collection, _, variable = tensor.variable.partition("/")
        yield tensor._replace(
            name=_TRUNK[part] + dot + rest, variable=f"{collection}/trunk/{variable}"
        )
    channels = 8 * sizes.trunk.width * BLOCKS[sizes.trunk.block].expansion
    yield from resnet.block(sizes.trunk, 4, channels, "res_part2", "extra")
    for i, ((reduction, classifier), dim) in enumerate(
        zip(_HEADS[program], sizes.dims, strict=True)
    ):
        yield from linear(
            f"{reduction}.0", f"heads_{i}/reduction", dim, channels, 1, 1, or_linear=True
        )
        yield from batch_norm(f"{reduction}.1", f"heads_{i}/bn", dim)
        yield from linear(classifier, f"heads_{i}/classifier", sizes.num_classes, dim)


def leaves(program: str, sizes: Sizes) -> dict[str, object]:
    """The leaves of a recipe that a checkpoint determines, by dotted name."""
    found = {f"trunk.{name}": value for name, value in sizes.trunk._asdict().items()}
    if program == "pmm":
        found |= {"stages": len(sizes.dims), "embedding_dim": sizes.dims[0]}
    else:
        found |= {"global_dim": sizes.dims[0], "part_dim": sizes.dims[1]}
    return {f"model.{name}": value for name, value in found.items()}
