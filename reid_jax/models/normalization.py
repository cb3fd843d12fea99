"""Batch norm (Ioffe and Szegedy, 2015) over all devices, and IBN-a, which adds instance norm.

Batch norm has a hand-written backward pass. Automatic differentiation of the formula would keep the
centred map and read it once for each of its uses. The gradient below keeps only the map, and needs
two sums and one pass.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reid_jax.runtime import collectives

EPSILON = 1e-5
MOMENTUM = 0.9  # PyTorch's 0.1


class BatchNorm(nn.Module):
    """Normalises each channel, then scales and shifts it. Parameters and statistics are float32.

    Attributes:
        train: True to use the batch's statistics and update the running ones, False to use the
            running ones.
        dtype: dtype of the result; the computation is in float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
        bias: whether each channel has a learnt shift.
    """

    train: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (..., C) of float32 or bfloat16 to (..., C)."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = jnp.zeros(channels, jnp.float32)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not self.train:
            return _normalize(x, mean.value, var.value, scale, bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        # Products return rows. If a norm read the map in its own shape, XLA could write it twice.
        rows, batch_mean, batch_var = normalize_batch(
            x.reshape(-1, x.shape[-1]), scale, bias, axis_name
        )
        y = rows.reshape(x.shape)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            mean.value = MOMENTUM * mean.value + (1.0 - MOMENTUM) * batch_mean
            count = x.size // x.shape[-1] * collectives.device_count(axis_name)
            unbiased = batch_var * (count / max(count - 1, 1))  # as in PyTorch
            var.value = MOMENTUM * var.value + (1.0 - MOMENTUM) * unbiased
        return y.astype(self.dtype)


class InstanceNorm(nn.Module):
    """Normalises each channel of each image over its locations, then scales and shifts it.

    Training and inference are equal, without running statistics (Ulyanov et al., 2016).

    Attributes:
        dtype: dtype of the result; the computation is in float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (B, H, W, C) of float32 or bfloat16 to (B, H, W, C)."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        x = x.astype(jnp.float32)
        x = x - x.mean(axis=(1, 2), keepdims=True)
        # Use centred values: maps of an image of one colour hardly vary, and have large means.
        var = jnp.square(x).mean(axis=(1, 2), keepdims=True)
        scale, bias = (weights.reshape(1, 1, 1, -1) for weights in (scale, bias))
        return (x * (jax.lax.rsqrt(var + EPSILON) * scale) + bias).astype(self.dtype)


class InstanceBatchNorm(nn.Module):
    """IBN-a (Pan et al., ECCV 2018): instance norm of half the channels, batch norm of the rest.

    Instance norm reads no other image, so it needs no other device.

    Attributes:
        train: as in `BatchNorm`.
        dtype: dtype of the result; the computation is in float32.
        axis_name: the pmapped axis whose devices share a batch, or None.
    """

    train: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (B, H, W, C) of float32 or bfloat16 to (B, H, W, C). Instance norm: the first C //
        2."""
        instance, batch = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        instance = InstanceNorm(self.dtype, name="instance")(instance)
        batch = BatchNorm(self.train, self.dtype, self.axis_name, name="batch")(batch)
        return jnp.concatenate([instance, batch], axis=-1)


def _normalize(x, mean, var, scale, bias):
    shape = (1,) * (x.ndim - 1) + (-1,)
    mul = (jax.lax.rsqrt(var + EPSILON) * scale).reshape(shape)
    return (x.astype(jnp.float32) - mean.reshape(shape)) * mul + bias.reshape(shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch norm with the batch's own statistics.

        y = scale (x - mean) / sqrt(var + epsilon) + bias

    Args:
        x: (..., C), this device's part of the batch.
        scale: (C,) float32.
        bias: (C,) float32.
        axis_name: the pmapped axis, or None.

    Returns:
        y, (..., C) float32; mean and biased variance over all devices and all axes except the last,
        (C,) float32 each. The gradients of mean and variance are ignored.
    """
    outputs, _ = _forward(x, scale, bias, axis_name)
    return outputs


def _forward(x, scale, bias, axis_name):
    axes = tuple(range(x.ndim - 1))
    values = x.astype(jnp.float32)
    moments = values.mean(axes), jnp.square(values).mean(axes)
    mean, square = collectives.mean(moments, axis_name)
    var = jnp.maximum(0.0, square - jnp.square(mean))
    y = _normalize(x, mean, var, scale, bias)
    return (y, mean, var), (x, mean, var, scale)


def _backward(axis_name, residuals, cotangents):
    x, mean, var, scale = residuals
    dy, _, _ = cotangents
    shape = (1,) * (x.ndim - 1) + (-1,)
    axes = tuple(range(x.ndim - 1))
    inv = jax.lax.rsqrt(var + EPSILON)
    # Recompute the normalised map, (x - mean) inv, so that it does not have to be kept.
    normal = (x.astype(jnp.float32) - mean.reshape(shape)) * inv.reshape(shape)
    dbias, dscale = dy.sum(axes), (dy * normal).sum(axes)
    count = x.size // x.shape[-1]
    # A change of the statistics changes every image of the batch.
    shift, tilt = collectives.mean((dbias / count, dscale / count), axis_name)
    dx = (inv * scale).reshape(shape) * (dy - shift.reshape(shape) - normal * tilt.reshape(shape))
    return dx.astype(x.dtype), dscale, dbias


normalize_batch.defvjp(_forward, _backward)
