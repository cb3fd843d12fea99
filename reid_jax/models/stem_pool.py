"""The stem's max pooling, 3x3 with stride 2, with a backward pass made of slices.

XLA's own, select-and-scatter, is a loop over windows that takes twenty times as long on CPUs.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def stem_pool(x: jax.Array) -> jax.Array:
    """The largest value of each 3x3 window, stride 2, padding 1: (B, H, W, C) to (B, H/2, W/2, C).

    Odd sides are halved upwards. Of equal values in a window the first, in row-major order, takes
    the gradient, as in XLA and PyTorch.
    """
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def _forward(x):
    y = stem_pool(x)
    return y, (x, y)


def _backward(residuals, dy):
    x, y = residuals
    (_, height, width, _), (_, rows, columns, _) = x.shape, y.shape
    # Place of each window's maximum, 3 i + j. Later places are tried first, so the first one stays.
    margins = ((0, 0), (1, 2 * rows - height), (1, 2 * columns - width), (0, 0))
    padded = jnp.pad(x, margins, constant_values=-jnp.inf)
    place = jnp.zeros(y.shape, jnp.int8)
    for i in (2, 1, 0):
        for j in (2, 1, 0):
            window = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            place = jnp.where(window == y, jnp.int8(3 * i + j), place)

    # Row i of window a is row 2a + i - 1 of x: even rows are in one window, odd ones in two.
    def row(i):
        return [jnp.where(place == 3 * i + j, dy, jnp.zeros_like(dy)) for j in range(3)]

    even, odd = row(1), [last + _next(first, 1) for last, first in zip(row(2), row(0), strict=True)]
    pairs = [jnp.stack([r[1], r[2] + _next(r[0], 2)], axis=3) for r in (even, odd)]
    dx = jnp.stack(pairs, axis=2).reshape(x.shape[0], 2 * rows, 2 * columns, x.shape[3])
    return (dx[:, :height, :width],)


def _next(x: jax.Array, axis: int) -> jax.Array:
    """What the next window along an axis has; zero after the last."""
    margins = [(0, int(a == axis)) for a in range(x.ndim)]
    return jnp.pad(jax.lax.slice_in_dim(x, 1, None, axis=axis), margins)


stem_pool.defvjp(_forward, _backward)
