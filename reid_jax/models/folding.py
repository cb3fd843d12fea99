"""Batch norms folded into the layers before them, for networks that only describe images.

    scale (x k - mean) / sqrt(var + epsilon) + bias  =  x (m k) + bias - m mean
    with m = scale / sqrt(var + epsilon)

The layer's kernel takes the factor m, and of the norm only a sum remains. Descriptors differ by
rounding, relatively by 1e-5 at most. A value beside a threshold of HBFP-Net's generalized pooling
may fall on its other side: about ten of a descriptor's 4,096 numbers differ by up to three
thousandths of its largest.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from reid_jax.models.normalization import EPSILON, BatchNorm

# The layers that norms follow, by the names of the norms, in all modules of this package.
_LAYERS = {
    **{"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample_bn": "downsample_conv"},
    **{"neck": "linear"},
}
_LAYERS_OF_BN = ("reduction", "linear")


def fold(variables: dict[str, Any]) -> dict[str, Any]:
    """The weights of a network, with batch norms folded where possible.

    A norm without a layer before it, such as a neck after pooling, and instance norm stay. These
    weights are for inference only, below `nn.intercept_methods(skip_folded)`.

    Args:
        variables: {"params", "batch_stats"}, NumPy arrays. They are not changed.

    Returns:
        The same collections. Arrays that folding does not change are the same objects.
    """
    params, statistics = _folded(variables["params"], variables["batch_stats"])
    return {"params": params, "batch_stats": statistics}


def skip_folded(call: Callable, arguments: tuple, options: dict, context: Any) -> Any:
    """For `nn.intercept_methods`: a folded norm only adds; everything else is as it was."""
    norm = context.module
    if not isinstance(norm, BatchNorm) or norm.has_variable("batch_stats", "mean"):
        return call(*arguments, **options)
    (x,) = arguments
    shift = jnp.asarray(norm.get_variable("params", "bias"))
    shift = shift.reshape((1,) * (x.ndim - 1) + (-1,))
    return (x.astype(jnp.float32) + shift).astype(norm.dtype)


def _folded(params: dict[str, Any], statistics: dict[str, Any]) -> tuple[dict, dict]:
    """The parameters and statistics of a module and all modules in it."""
    params, statistics = dict(params), dict(statistics)
    for name, tree in statistics.items():
        layer = _layer_of(name, params)
        if layer is not None:
            # IBN-a: batch norm of the last channels only.
            part = "batch" if "batch" in tree else None
            norm = params[name][part] if part else params[name]
            factor, shift = _affine(norm, tree[part] if part else tree)
            params[layer] = _scaled(params[layer], factor)
            params[name] = {**params[name], part: {"bias": shift}} if part else {"bias": shift}
            statistics[name] = {}
        elif "mean" not in tree:
            params[name], statistics[name] = _folded(params[name], tree)
    return params, statistics


def _layer_of(norm: str, params: dict[str, Any]) -> str | None:
    names = _LAYERS_OF_BN if norm == "bn" else (_LAYERS.get(norm),)
    return next((name for name in names if name in params), None)


def _affine(norm: dict[str, Any], statistics: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    factor = norm["scale"] / np.sqrt(np.float64(statistics["var"]) + EPSILON)
    shift = norm.get("bias", 0.0) - statistics["mean"] * factor
    return factor, shift.astype(np.float32)


def _scaled(layer: dict[str, Any], factor: np.ndarray) -> dict[str, Any]:
    others = layer["kernel"].shape[-1] - len(factor)
    factor = np.concatenate([np.ones(others), factor])
    return {name: (weights * factor).astype(np.float32) for name, weights in layer.items()}
