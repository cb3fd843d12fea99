"""The trunk's convolutions and their initial weights."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from reid_jax.models import stem_conv, winograd

# By kernel size and stride, what Linen calls instead of `lax.conv_general_dilated`.
_FASTER = {(3, 1): winograd.as_conv_general_dilated, (7, 2): stem_conv.as_conv_general_dilated}


def kaiming_fan_out(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan-out (He et al., 2015), for kernels (..., inputs, outputs).

    The result is bit-identical to `variance_scaling(2.0, "fan_out", "normal")`, but the values are
    drawn along one axis: XLA compiles that generator two to three times as fast as one over the
    four axes of a kernel.
    """
    size = math.prod(shape)
    variance = jnp.array(2.0 * shape[-2] / size, dtype)
    return jax.random.normal(key, (size,), dtype).reshape(shape) * jnp.sqrt(variance)


def conv(features: int, kernel: int, stride: int, *, dtype, name: str) -> nn.Conv:
    """A convolution without bias, padded as PyTorch pads: (kernel - 1) // 2 on both sides."""
    padding = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=((padding, padding), (padding, padding)),
        use_bias=False,
        dtype=dtype,
        kernel_init=kaiming_fan_out,
        name=name,
        conv_general_dilated=_FASTER.get((kernel, stride)),
    )


def pointwise(features: int, *, dtype, name: str) -> nn.Dense:
    """A 1x1 convolution as a matrix product. XLA computes its gradients faster on CPUs."""
    return nn.Dense(
        features,
        use_bias=False,
        dtype=dtype,
        kernel_init=kaiming_fan_out,
        name=name,
        dot_general=_as_dot_general,
    )


def _as_dot_general(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """`product_of_rows` as Linen's `Dense` calls it, for (..., C).

    All locations are in one axis. If a weight gradient sums over several axes, XLA copies and
    transposes the map first; over one axis it does not.
    """
    rows = product_of_rows(x.reshape(-1, x.shape[-1]), kernel)
    return rows.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def product_of_rows(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """The matrix product (N, C) by (C, D), whose weight gradient is fast on CPUs."""
    return rows @ kernel


def _forward(rows, kernel):
    return rows @ kernel, (rows, kernel)


def _backward(residuals, dy):
    rows, kernel = residuals
    dkernel = lax.platform_dependent(rows, dy, cpu=_narrow_first, default=_sum_over_rows)
    return dy @ kernel.T, dkernel


product_of_rows.defvjp(_forward, _backward)


def _sum_over_rows(x, y):
    """X^T Y: (N, C) and (N, D) to (C, D)."""
    return lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def _narrow_first(x, y):
    """The same. XLA for CPUs copies the first matrix value by value: better the narrower one."""
    if x.shape[1] <= y.shape[1]:
        return _sum_over_rows(x, y)
    # Without the barrier, XLA would swap them back.
    return lax.optimization_barrier(_sum_over_rows(y, x)).T
