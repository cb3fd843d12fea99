"""Tensors of other programs and the variables that they become. Every tensor is accounted for.

Modules for other programs list their tensors as `Tensor`s; `variables` does the rest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from reid_jax.runtime.messages import shown
from reid_jax.weights.files import listed

# A counter that PyTorch's batch norm keeps, in newer files.
COUNTER = "num_batches_tracked"
_MEAN = ".running_mean"
_VARIANCES = (".running_var", "/var")  # in PyTorch and here

# Dtypes in which weights may be stored; all become float32. NumPy's name of bfloat16 is JAX's.
_FLOATS = ("float16", "bfloat16", "float32")


# The axes of a tensor in our order, by the number of axes.
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


class Tensor(NamedTuple):
    """A tensor of a PyTorch program.

    The axes of kernels are reordered: (O, I, h, w) becomes (h, w, I, O). (O, I) becomes (I, O), and
    so does the kernel of a 1x1 convolution.
    """

    name: str  # `layer1.0.conv1.weight`
    variable: str  # ours: `params/layer1_0/conv1/kernel`
    shape: tuple[int, ...]  # in PyTorch; (O, I, 1, 1) for a 1x1 convolution
    or_linear: bool = False  # whether a 1x1 convolution may be stored as a linear map, (O, I)

    @property
    def our_shape(self) -> tuple[int, ...]:
        """The shape of the variable."""
        shape = self.shape[:2] if self.shape[2:] == (1, 1) else self.shape
        return tuple(shape[axis] for axis in _AXES[len(shape)])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that the tensor may have."""
        return (self.shape, self.shape[:2]) if self.or_linear else (self.shape,)


def kernel(name: str, variable: str, *shape: int, or_linear: bool = False) -> Iterator[Tensor]:
    """The weight of a convolution or a linear map."""
    yield Tensor(f"{name}.weight", f"params/{variable}/kernel", shape, or_linear)


def linear(name: str, variable: str, *shape: int, or_linear: bool = False) -> Iterator[Tensor]:
    """The weight and the bias of a linear map, or of a 1x1 convolution."""
    yield from kernel(name, variable, *shape, or_linear=or_linear)
    yield Tensor(f"{name}.bias", f"params/{variable}/bias", shape[:1])


def affine(name: str, variable: str, channels: int) -> Iterator[Tensor]:
    """Scale and shift of a norm."""
    yield Tensor(f"{name}.weight", f"params/{variable}/scale", (channels,))
    yield Tensor(f"{name}.bias", f"params/{variable}/bias", (channels,))


def batch_norm(name: str, variable: str, channels: int) -> Iterator[Tensor]:
    """Batch norm, with its running statistics."""
    yield from affine(name, variable, channels)
    yield Tensor(f"{name}{_MEAN}", f"batch_stats/{variable}/mean", (channels,))
    yield Tensor(f"{name}.running_var", f"batch_stats/{variable}/var", (channels,))


def variables(
    arrays: Mapping[str, np.ndarray], tensors: Iterable[Tensor], what: str, source: os.PathLike[str]
) -> dict[str, Any]:
    """Convert a program's tensors to variables.

    Counters of batch norm may be present or missing.

    Args:
        arrays: all arrays that the program saved, by name, except those that are omitted on
            purpose.
        tensors: the required tensors.
        what: the kind of network, for error messages: `ResNet-50`.
        source: the file that they are from, for error messages.

    Returns:
        {"params", "batch_stats"}, nested, float32.

    Raises:
        ValueError: as `account`.
    """
    tensors = list(tensors)
    shapes = {tensor.name: tensor.shapes for tensor in tensors}
    # The counters of the required batch norms.
    counters = {f"{name.removesuffix(_MEAN)}.{COUNTER}" for name in shapes if name.endswith(_MEAN)}
    arrays = {name: array for name, array in arrays.items() if name not in counters}
    account(arrays, shapes, what, source)
    return unflatten_dict(
        {tensor.variable: _as_ours(arrays[tensor.name]) for tensor in tensors}, sep="/"
    )


def account(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    what: str,
    source: str | os.PathLike[str],
) -> None:
    """Check that exactly the required arrays are present, and that they can be weights.

    Args:
        arrays: by name.
        shapes: the allowed shapes of each required array, by name.
        what: the kind of network, for error messages: `ResNet-50`.
        source: the file that they are from, for error messages.

    Raises:
        ValueError: arrays are missing, unexpected, of another shape or dtype, not finite, or
            negative variances. The message lists the names, at most ten for each problem.
    """
    there = {name: arrays[name] for name in shapes if name in arrays}
    right = {name: array for name, array in there.items() if array.dtype.name in _FLOATS}
    problems = {
        "missing": [name for name in shapes if name not in arrays],
        "unexpected": sorted(name for name in arrays if name not in shapes),
        "of another shape": [
            f"{name} {array.shape}, not {' or '.join(map(str, shapes[name]))}"
            for name, array in there.items()
            if array.shape not in shapes[name]
        ],
        f"of another dtype than {', '.join(_FLOATS)}": [
            f"{name} {'unknown here' if array.dtype == object else array.dtype}"
            for name, array in there.items()
            if name not in right
        ],
        "not finite": [
            name for name, a in right.items() if not np.isfinite(a.astype(np.float32)).all()
        ],
        "below zero": [
            name
            for name, array in right.items()
            if name.endswith(_VARIANCES) and (array.astype(np.float32) < 0).any()
        ],
    }
    lines = [f"{len(names):,} {kind}: {listed(names)}" for kind, names in problems.items() if names]
    if lines:
        raise ValueError("\n  ".join([f"{shown(source)} does not fit {what}:", *lines]))


def shapes_of(tree: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...]]]:
    """The `shapes` of `account` for arrays named as the leaves of `tree`: `params/conv1/kernel`."""
    return {name: (tuple(leaf.shape),) for name, leaf in flatten_dict(tree, sep="/").items()}


def _as_ours(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return np.ascontiguousarray(array.transpose(_AXES[array.ndim]), np.float32)
