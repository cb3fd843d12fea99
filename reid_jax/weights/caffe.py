"""ResNets of Caffe as trunks: the original ResNet-50, 101 and 152, and Yahoo's open_nsfw.

He et al. (2016) published their networks with layer names like `res2a_branch2b`. The program
pynetbuilder, which made open_nsfw (a ResNet-50 of half the width), names the same layer
`conv_stage0_block0_branch2b`. Both have v1 strides; the strides of the file decide.

In Caffe, batch norm is two layers, one that normalises and one that scales, and convolutions may
have biases. With f = 1 / factor, or f = 0 if the stored factor is 0, three layers compute

    y = scale (W x + b - f mean) / sqrt(f var + eps) + bias

This becomes a kernel without bias and a batch norm with the mean f mean - b.

The input of these networks is blue, green and red in 0..255, minus a mean. Order, range and mean
are folded into the first convolution and its norm, because a trunk takes normalised RGB, as
`reid_jax.data.augment.normalize` returns it. The means of blue, green and red are

    (104, 117, 123) for open_nsfw and other networks of pynetbuilder,
    (103.06, 115.90, 123.15) for the original networks. They subtract a mean picture; these are its
        channel means. The variation over the picture is ignored.

Two differences from the source network remain:

    The first convolution pads images with zeros. In Caffe these zeros correspond to the mean above,
    here to ImageNet's mean (103.53, 116.28, 123.675), which differs by less than one level. This
    changes only the cells whose window crosses the border.

    Caffe's max pooling of the stem has no padding on the left and top, and rounds sizes up. Pooling
    here pads one cell on all sides, which shifts all later maps by half a cell of the pooled map.
"""

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reid_jax.data.augment import MEAN, STD
from reid_jax.models.normalization import EPSILON
from reid_jax.runtime.messages import shown
from reid_jax.weights import resnet
from reid_jax.weights.caffe_names import Unit, infer, style_of, units_of
from reid_jax.weights.caffemodel import Convolution, Layer
from reid_jax.weights.files import WeightsFile, listed
from reid_jax.weights.resnet import Structure
from reid_jax.weights.tensors import account, variables

# The arrays of a layer, by its type.
_LABELS = {
    "Convolution": ("kernel", "bias"),
    "BatchNorm": ("mean", "var", "factor"),
    "Scale": ("scale", "bias"),
}
# Types of layers without weights in a ResNet, or in the program that trained it.
_WITHOUT_WEIGHTS = re.compile(
    r"Input|\w*Data|Split|ReLU|Pooling|Eltwise|Dropout|Softmax|\w*Loss|Accuracy|Silence"
)


def convert(file: WeightsFile) -> tuple[Structure, dict[str, Any], tuple[str, ...]]:
    """Convert a network of Caffe to a trunk.

    Args:
        file: a `.caffemodel`.

    Returns:
        The structure, with the place of the stride; {"params", "batch_stats"} as in `ResNet`,
        float32; and the names of the omitted layers, those of a classifier.

    Raises:
        ValueError: it is not a ResNet, or some layers do not fit a ResNet. The message lists layers
            that are missing or unexpected, and those with other arrays or settings.
    """
    layers = {layer.name: layer for layer in file.layers if layer.blobs}
    left_out = tuple(
        name for name, x in layers.items() if x.type == "InnerProduct" and name.startswith("fc")
    )
    style = style_of(layers)
    if style is None:
        raise ValueError(
            f"{shown(file.path)} holds no supported network of Caffe: it must be a ResNet with its "
            "authors' names (res2a_branch1) or one of pynetbuilder "
            "(conv_stage0_block0_branch2a). Its layers with weights: "
            f"{listed(sorted(layers)) or 'none'}"
        )
    structure, numbered = infer({name: x.blobs[0] for name, x in layers.items()}, style)
    units = list(units_of(structure, style, numbered))
    arrays = {
        f"{name}/{label}": blob
        for name, layer in layers.items()
        if name not in left_out
        for label, blob in zip(_labels(layer), layer.blobs, strict=True)
    }
    account(arrays, dict(_shapes(units, arrays)), structure.title, file.path)
    structure = structure._replace(stride_in_1x1=_stride_in_1x1(units, layers, structure))
    _check_settings(file, units, structure)
    folded: dict[str, np.ndarray] = {}
    for unit in units:
        mean = None if unit.block else style.mean
        folded |= _fold(unit, [layers[name] for name in unit.layers], mean)
    tree = variables(folded, resnet.tensors(structure), structure.title, file.path)
    return structure, tree, left_out


def _labels(layer: Layer) -> list[str]:
    """The name of each array of a layer; surplus arrays have numbers."""
    labels = _LABELS.get(layer.type, ())
    return [labels[i] if i < len(labels) else str(i) for i in range(len(layer.blobs))]


def _shapes(
    units: Sequence[Unit], arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, tuple[tuple[int, ...], ...]]]:
    """The shapes that the arrays of layers must have. Biases may be missing."""
    for unit in units:
        convolution, norm, scale = unit.layers
        # Old versions of Caffe stored vectors with four axes.
        vector, number = [((size,), (1, 1, 1, size)) for size in (unit.shape[0], 1)]
        yield f"{convolution}/kernel", (unit.shape,)
        yield f"{norm}/mean", vector
        yield f"{norm}/var", vector
        yield f"{norm}/factor", number
        yield f"{scale}/scale", vector
        for name in (f"{convolution}/bias", f"{scale}/bias"):
            if name in arrays:
                yield name, vector


def _stride_in_1x1(
    units: Sequence[Unit], layers: Mapping[str, Layer], structure: Structure
) -> bool | None:
    """Whether bottlenecks have their stride on the first 1x1; None if no stage has a stride."""
    if structure.block == "basic":
        return False
    strided = {
        unit.convolution.rpartition(".")[2]
        for unit in units
        if unit.block and layers[unit.layers[0]].convolution.stride != (1, 1)
    }
    return "conv1" in strided if strided & {"conv1", "conv2"} else None


def _check_settings(file: WeightsFile, units: Sequence[Unit], structure: Structure) -> None:
    """Check that the layers compute the same as those of a ResNet; raise ValueError as
    `convert`."""
    layers = {layer.name: layer for layer in file.layers if layer.blobs}
    counts = collections.Counter(layer.name for layer in file.layers if layer.blobs)
    first = structure.stride_in_1x1 or structure.block == "basic"
    strided = "conv1" if first else "conv2"
    shortcuts = {
        unit.block: layers[unit.layers[0]].convolution.stride[:1] * 2
        for unit in units
        if "downsample" in unit.convolution
    }
    others = []
    for unit in units:
        stride: tuple[int, ...] = (1, 1) if unit.block else (2, 2)
        if unit.convolution.endswith((f".{strided}", ".downsample.0")):
            stride = shortcuts.get(unit.block, stride)
        kernel = unit.shape[2:]
        wanted = Convolution(kernel, stride, pad=tuple(size // 2 for size in kernel))
        got = layers[unit.layers[0]].convolution
        if got != wanted:
            others.append(f"{unit.layers[0]} ({_differences(got, wanted)})")
    problems = {
        "of a type that a ResNet does not have": [
            f"{layer.name} ({layer.type})"
            for layer in file.layers
            if not layer.blobs and not _WITHOUT_WEIGHTS.fullmatch(layer.type)
        ],
        "given more than once": [name for name, count in counts.items() if count > 1],
        "with other settings": others,
    }
    lines = [f"{len(names):,} {kind}: {listed(names)}" for kind, names in problems.items() if names]
    if lines:
        title = f"{shown(file.path)} does not fit {structure.title}. Layers:"
        raise ValueError("\n  ".join([title, *lines]))


def _differences(got: Convolution, wanted: Convolution) -> str:
    """Describe differences, as in `stride (4, 4), not (2, 2)`."""
    return ", ".join(
        f"{name} {value}, not {other}"
        for name, value, other in zip(Convolution._fields, got, wanted, strict=True)
        if value != other
    )


def _fold(
    unit: Unit, layers: Sequence[Layer], input_mean: Sequence[float] | None
) -> dict[str, np.ndarray]:
    """Combine three layers to a kernel and a batch norm, by torchvision's names, float32.

    Args:
        unit: the convolution and norm that they form.
        layers: convolution, batch norm and scale.
        input_mean: the mean of blue, green and red if they are the stem; otherwise None.
    """
    convolution, norm, scale = (
        [
            np.asarray(blob if blob.shape == unit.shape else blob.ravel(), np.float64)
            for blob in layer.blobs
        ]
        for layer in layers
    )
    kernel, bias = convolution if len(convolution) == 2 else (*convolution, np.zeros(1))
    gain, shift = scale if len(scale) == 2 else (*scale, np.zeros_like(scale[0]))
    factor = 1 / norm[2] if norm[2] else norm[2]
    mean, var = factor * norm[0] - bias, factor * norm[1]
    if input_mean is not None:
        kernel, constant = _for_normalized_rgb(kernel, input_mean)
        mean = mean - constant
    with np.errstate(all="ignore"):  # `variables` reports values that are not finite.
        gain, var = _with_our_epsilon(gain, var, layers[1].epsilon)
        folded: dict[str, np.ndarray] = {
            f"{unit.convolution}.weight": kernel,
            f"{unit.norm}.weight": gain,
            f"{unit.norm}.bias": shift,
            f"{unit.norm}.running_mean": mean,
            f"{unit.norm}.running_var": var,
        }
        return {name: array.astype(np.float32) for name, array in folded.items()}


def _for_normalized_rgb(
    kernel: np.ndarray, input_mean: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Convert the first kernel, (O, 3, h, w), for images normalised as in this package.

    The network's input is 255 (STD n + MEAN) - input_mean, with n the normalised image.

    Returns:
        The kernel to apply to n, and the offset to add to its result, (O,).
    """
    kernel = kernel[:, ::-1]  # blue, green, red to red, green, blue
    offset = 255 * np.array(MEAN) - np.array(input_mean[::-1])
    constant = np.einsum("ochw,c->o", kernel, offset)
    return kernel * (255 * np.array(STD)).reshape(1, 3, 1, 1), constant


def _with_our_epsilon(
    gain: np.ndarray, var: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and variance for which gain / sqrt(var + epsilon) is the same with our epsilon.

    The variance absorbs the difference. If it would become negative, it is set to 0 and the scale
    absorbs the rest.
    """
    if np.float32(epsilon) == np.float32(EPSILON):
        return gain, var
    ours = var + (epsilon - EPSILON)
    small = (ours < 0) & (var >= 0)
    gain = np.where(small, gain * np.sqrt(EPSILON / (var + epsilon)), gain)
    return gain, np.where(var < 0, var, np.maximum(ours, 0))
