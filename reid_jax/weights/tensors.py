"""Tensors of others and the variables that they become; every one is accounted for.

Whoever knows another program's names lists them as `Tensor`s; `variables` does the rest.
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

# What weights may be stored as; all become float32. NumPy's name of bfloat16 is JAX's.
_FLOATS = ("float16", "bfloat16", "float32")


# By their number, the axes of a tensor in our order.
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


class Tensor(NamedTuple):
    """A tensor of a PyTorch program.

    Kernels change their axes: (O, I, h, w) becomes (h, w, I, O), and (O, I), which 1x1 convolutions
    count as too, (I, O).
    """

    name: str  # `layer1.0.conv1.weight`
    variable: str  # ours: `params/layer1_0/conv1/kernel`
    shape: tuple[int, ...]  # in PyTorch; of a 1x1 convolution (O, I, 1, 1)
    or_linear: bool = False  # whether a 1x1 convolution may be a linear map, (O, I)

    @property
    def our_shape(self) -> tuple[int, ...]:
        """The variable's."""
        shape = self.shape[:2] if self.shape[2:] == (1, 1) else self.shape
        return tuple(shape[axis] for axis in _AXES[len(shape)])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Those that the tensor may have."""
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
    """Batch norm, with what it remembers."""
    yield from affine(name, variable, channels)
    yield Tensor(f"{name}{_MEAN}", f"batch_stats/{variable}/mean", (channels,))
    yield Tensor(f"{name}.running_var", f"batch_stats/{variable}/var", (channels,))


def variables(
    arrays: Mapping[str, np.ndarray], tensors: Iterable[Tensor], what: str, source: os.PathLike[str]
) -> dict[str, Any]:
    """Puts a program's tensors where ours are.

    Counters of batch norm may be among them or not.

    Args:
        arrays: by name, all that the program saved but what is left out on purpose.
        tensors: those that there must be.
        what: they are of, for the error: `ResNet-50`.
        source: the file that they are from, for the error.

    Returns:
        {"params", "batch_stats"}, nested, float32.

    Raises:
        ValueError: as `account`.
    """
    tensors = list(tensors)
    shapes = {tensor.name: tensor.shapes for tensor in tensors}
    # Those that belong to a batch norm which there must be.
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
    """Makes sure that arrays are those that there must be, and can be weights.

    Args:
        arrays: by name.
        shapes: by name, what each may have.
        what: they are of, for the error: `ResNet-50`.
        source: the file that they are from, for the error.

    Raises:
        ValueError: arrays are missing, or there are others, or they are of other shapes or dtypes,
            not finite, or variances below zero. Names them all, but of many of a kind the first
            ten.
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
    """What `account` wants of arrays named as the leaves of `tree`: `params/conv1/kernel`."""
    return {name: (tuple(leaf.shape),) for name, leaf in flatten_dict(tree, sep="/").items()}


def _as_ours(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return np.ascontiguousarray(array.transpose(_AXES[array.ndim]), np.float32)
