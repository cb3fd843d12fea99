"""The networks' building blocks again, in float64 NumPy, written from the papers."""

import numpy as np


def conv2d(x, kernel, stride=1):
    """(B, H, W, Cin) with kernel (k, k, Cin, Cout), zero-padded by (k - 1) // 2.

    A kernel (Cin, Cout) is one of 1x1.
    """
    kernel = kernel[None, None] if kernel.ndim == 2 else kernel
    size = kernel.shape[0]
    pad = (size - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)


def max_pool_3x3_stride_2(x):
    """(B, H, W, C), padded by one with -inf."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max(axis=(-2, -1))


def batch_norm(x, params, stats=None):
    """Over all axes but the last; with the batch's own statistics where `stats` is None."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if stats is None else stats["mean"]
    var = x.var(axes) if stats is None else stats["var"]
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def relu(x):
    """max(x, 0)."""
    return np.maximum(x, 0)


def bottleneck(x, params, stride=1, stats=None):
    """ResNet v1.5's bottleneck."""

    def norm(y, name):
        return batch_norm(y, params[name], None if stats is None else stats[name])

    y = relu(norm(conv2d(x, params["conv1"]["kernel"]), "bn1"))
    y = relu(norm(conv2d(y, params["conv2"]["kernel"], stride), "bn2"))
    y = norm(conv2d(y, params["conv3"]["kernel"]), "bn3")
    if "downsample_conv" in params:
        x = norm(conv2d(x, params["downsample_conv"]["kernel"], stride), "downsample_bn")
    return relu(x + y)


def resnet(x, params, strides, stats=None):
    """The last map of the trunk."""
    x = conv2d(x, params["conv1"]["kernel"], 2)
    x = relu(batch_norm(x, params["bn1"], None if stats is None else stats["bn1"]))
    x = max_pool_3x3_stride_2(x)
    blocks = sorted(name for name in params if name.startswith("layer"))
    for name in blocks:
        stage, block = (int(part) for part in name.removeprefix("layer").split("_"))
        stride = strides[stage - 1] if block == 0 else 1
        x = bottleneck(x, params[name], stride, None if stats is None else stats[name])
    return x


def stage_head(x, params, pooling, stats=None):
    """Embedding and logits of a stage."""
    x = x.mean(axis=(1, 2)) if pooling == "average" else x.max(axis=(1, 2))
    x = x @ params["reduction"]["kernel"] + params["reduction"]["bias"]
    embedding = relu(batch_norm(x, params["bn"], None if stats is None else stats["bn"]))
    return embedding, embedding @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def numerical_gradient(function, x, step=1e-5):
    """Central differences of a scalar function at x."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        shifted = x.copy()
        shifted[place] += step
        above = function(shifted)
        shifted[place] -= 2 * step
        gradient[place] = (above - function(shifted)) / (2 * step)
    return gradient
