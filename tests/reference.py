"""The networks' building blocks in float64 NumPy, written from the papers."""

import collections
import math

import jax
import numpy as np


def random_variables(shapes, rng):
    """float32 variables of these shapes, without the zeros and ones of initialisation.

    This is also much faster than initialisation, which XLA compiles for every shape.
    """

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        name = path[-1].key
        if name == "p" and path[-2].key == "pool":  # the exponent of generalized-mean pooling
            noise = 2 + np.abs(noise)
        elif name in ("kernel", "p"):
            noise *= np.sqrt(2 / max(np.prod(leaf.shape[:-1]), leaf.shape[0]))
        elif name in ("scale", "var"):
            noise = 1 + 0.2 * np.abs(noise)
        else:
            noise *= 0.2
        return np.asarray(noise, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def in_float64(tree):
    """The same tree of float64 NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def conv2d(x, kernel, stride=1):
    """Convolve (B, H, W, Cin) with a kernel (k, k, Cin, Cout), zero-padded by (k - 1) // 2.

    A kernel (Cin, Cout) is a 1x1 kernel.
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


def empty_stats():
    """Empty statistics, in which every norm stores those of its batch in training."""
    return collections.defaultdict(empty_stats)


def batch_norm(x, params, stats=None):
    """Normalise over all axes except the last, with batch statistics if `stats` is None or empty.

    Empty statistics are set to the batch's mean and its unbiased variance, as in PyTorch.
    """
    axes = tuple(range(x.ndim - 1))
    if stats:
        mean, var = stats["mean"], stats["var"]
    else:
        mean, var = x.mean(axes), x.var(axes)
        if stats is not None:
            count = math.prod(x.shape[:-1])
            squares = sum((row - mean) ** 2 for row in x.reshape(count, -1))
            stats |= {"mean": mean, "var": squares / (count - 1)}
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def relu(x):
    """max(x, 0)."""
    return np.maximum(x, 0)


def instance_norm(x, params):
    """Normalise (B, H, W, C): each channel of each image by its own mean and variance."""
    y = np.zeros_like(x)
    for b, c in np.ndindex(x.shape[0], x.shape[3]):
        plane = x[b, :, :, c]
        y[b, :, :, c] = (plane - plane.mean()) / math.sqrt(plane.var() + 1e-5)
    return y * params["scale"] + params["bias"]


def ibn(x, params, stats=None):
    """IBN-a's norm: instance norm of the first half of channels, batch norm of the others."""
    half = x.shape[-1] // 2
    normal = batch_norm(x[..., half:], params["batch"], None if stats is None else stats["batch"])
    return np.concatenate([instance_norm(x[..., :half], params["instance"]), normal], axis=-1)


def block(x, params, stride=1, stats=None, stride_in_1x1=False):
    """A block of ResNet: a bottleneck, or a basic block if there is no third convolution.

    If the first norm has two parts, it is IBN-a's. A bottleneck of v1.5 has its stride on the 3x3
    convolution, one of v1 on the first 1x1.
    """

    def norm(y, name):
        kind = ibn if "instance" in params[name] else batch_norm
        return kind(y, params[name], None if stats is None else stats[name])

    basic = "conv3" not in params
    first, second = (stride, 1) if basic or stride_in_1x1 else (1, stride)
    y = relu(norm(conv2d(x, params["conv1"]["kernel"], first), "bn1"))
    y = norm(conv2d(y, params["conv2"]["kernel"], second), "bn2")
    if not basic:
        y = norm(conv2d(relu(y), params["conv3"]["kernel"]), "bn3")
    if "downsample_conv" in params:
        x = norm(conv2d(x, params["downsample_conv"]["kernel"], stride), "downsample_bn")
    return relu(x + y)


def resnet_blocks(x, params, strides, stats=None, stride_in_1x1=False):
    """The map after each block of the trunk, by the block's name."""
    x = conv2d(x, params["conv1"]["kernel"], 2)
    x = relu(batch_norm(x, params["bn1"], None if stats is None else stats["bn1"]))
    x = max_pool_3x3_stride_2(x)
    maps = {}
    for name in sorted(name for name in params if name.startswith("layer")):
        stage, number = (int(part) for part in name.removeprefix("layer").split("_"))
        stride = strides[stage - 1] if number == 0 else 1
        of_block = None if stats is None else stats[name]
        x = block(x, params[name], stride, of_block, stride_in_1x1)
        maps[name] = x
    return maps


def resnet(x, params, strides, stats=None):
    """The last map of the trunk."""
    return list(resnet_blocks(x, params, strides, stats).values())[-1]


def stage_head(x, params, pooling, stats=None):
    """Embedding and logits of a stage."""
    x = x.mean(axis=(1, 2)) if pooling == "average" else x.max(axis=(1, 2))
    x = x @ params["reduction"]["kernel"] + params["reduction"]["bias"]
    embedding = relu(batch_norm(x, params["bn"], None if stats is None else stats["bn"]))
    return embedding, embedding @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def pooled_head(x, params, pool, stats=None, cosine_scale=0):
    """Embedding, descriptor and logits of a head, with a neck if `params` has one.

    `pool` is a function of the map and of its own parameters.
    """
    embedding = descriptor = pool(x, params.get("pool"))
    if "linear" in params:
        descriptor = descriptor @ params["linear"]["kernel"] + params["linear"].get("bias", 0.0)
    if "neck" in params:
        neck = {"bias": 0.0, **params["neck"]}
        descriptor = batch_norm(descriptor, neck, None if stats is None else stats["neck"])
    kernel = params["classifier"]["kernel"]
    if cosine_scale:
        logits = np.zeros((len(descriptor), kernel.shape[1]))
        for b, c in np.ndindex(*logits.shape):
            lengths = math.hypot(*descriptor[b]) * math.hypot(*kernel[:, c])
            logits[b, c] = cosine_scale * (descriptor[b] * kernel[:, c]).sum() / lengths
        return embedding, descriptor, logits
    return embedding, descriptor, descriptor @ kernel + params["classifier"].get("bias", 0.0)


def self_awareness(x, scores):
    """HBFP-Net's equation 1, X' = M * X, with M the sigmoid of scores (B, N, 1)."""
    out = np.zeros_like(x)
    for b, n, d in np.ndindex(*x.shape):
        out[b, n, d] = x[b, n, d] / (1 + math.exp(-scores[b, n, 0]))
    return out


def correlation(x, y, p):
    """HBFP-Net's equation 2: C (B, N, N) of X'U and Y'V, (B, N, L), before the softmax."""
    batch, locations, dims = x.shape
    c = np.zeros((batch, locations, locations))
    for b, i, j in np.ndindex(*c.shape):
        for n in range(dims):
            c[b, i, j] += p[n] * max(x[b, i, n], 0) * max(y[b, j, n], 0)
    return c


def softmax_of_columns(c):
    """Softmax of each matrix (N, N) of (B, N, N), column by column."""
    out = np.zeros_like(c)
    for b in range(c.shape[0]):
        for j in range(c.shape[2]):
            column = np.exp(c[b, :, j] - c[b, :, j].max())
            out[b, :, j] = column / column.sum()
    return out


def correlation_maps(x, y, p):
    """C_x and C_y: C_y is the transpose of C_x, then softmax on each column of both (figure 3)."""
    c = correlation(x, y, p)
    transpose = np.stack([matrix.T for matrix in c])
    return softmax_of_columns(c), softmax_of_columns(transpose)


def perceive(x, y, c_x, c_y):
    """HBFP-Net's equation 4 of X'U' and Y'V': (X_y)^T and (Y_x)^T, (B, N, L')."""
    x_y, y_x = np.zeros_like(x), np.zeros_like(y)
    batch, locations, dims = x.shape
    for b, group, n in np.ndindex(batch, dims, locations):
        xs = [max(x[b, m, group], 0) for m in range(locations)]  # (sigma(X'U')_l)^T, a row
        ys = [max(y[b, m, group], 0) for m in range(locations)]
        x_y[b, n, group] = xs[n] * sum(ys[m] * c_y[b, m, n] for m in range(locations))
        y_x[b, n, group] = sum(xs[m] * c_x[b, m, n] for m in range(locations)) * ys[n]
    return x_y, y_x


def bfp(x, y, params, stats=None):
    """The module of HBFP-Net's figure 4 on maps (B, h, w, D_1) and (B, h, w, D_2).

    All linear maps are followed by batch norm (section 4.2).
    """

    def linear(z, name):
        z = z @ params[name]["linear"]["kernel"]
        return batch_norm(z, params[name]["bn"], None if stats is None else stats[name]["bn"])

    shapes = x.shape, y.shape
    x, y = (z.reshape(z.shape[0], z.shape[1] * z.shape[2], z.shape[3]) for z in (x, y))
    x = self_awareness(x, x @ params["mask_x"]["kernel"] + params["mask_x"]["bias"])
    y = self_awareness(y, y @ params["mask_y"]["kernel"] + params["mask_y"]["bias"])
    c_x, c_y = correlation_maps(linear(x, "u"), linear(y, "v"), params["p"])
    x_y, y_x = perceive(linear(x, "u_prime"), linear(y, "v_prime"), c_x, c_y)
    return linear(x_y, "p_x").reshape(shapes[0]), linear(y_x, "p_y").reshape(shapes[1])


def generalized_pool(x, lambdas):
    """HBFP-Net's equation 6, summed over lambdas: (B, H, W, C) to (B, C)."""
    batch, height, width, channels = x.shape
    pooled = np.zeros((batch, channels))
    for b, c in np.ndindex(batch, channels):
        values = [float(x[b, i, j, c]) for i in range(height) for j in range(width)]
        low, high = min(values), max(values)
        for threshold in lambdas:
            kept = [v for v in values if high == low or (v - low) / (high - low) >= threshold]
            pooled[b, c] += sum(kept) / len(kept)
    return pooled


def generalized_mean(x, p):
    """Radenovic's pooling with one exponent: (B, H, W, C) to (B, C)."""
    locations = x.shape[1] * x.shape[2]
    return ((np.maximum(x, 1e-6) ** p).sum(axis=(1, 2)) / locations) ** (1 / p)


def class_activation_map(x, weights):
    """CAM of Zhou et al. (2016): maps (B, h, w, C) and class weights (B, C) to (B, h, w)."""
    cams = np.zeros(x.shape[:3])
    for b, c in np.ndindex(weights.shape):
        cams[b] += weights[b, c] * x[b, :, :, c]
    return cams


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
