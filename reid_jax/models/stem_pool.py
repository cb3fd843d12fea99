"""The stem's max pooling, 3x3 with stride 2, with a backward pass made of slices.

XLA's own backward pass, select-and-scatter, loops over windows and takes ten times as long on CPUs.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def stem_pool(x: jax.Array) -> jax.Array:
    """The largest value of each 3x3 window, stride 2, padding 1: (B, H, W, C) to (B, H/2, W/2, C).

    Odd sizes are halved and rounded up. If values in a window are equal, the first in row-major
    order gets the gradient, as in XLA and PyTorch.
    """
    largest, _ = _largest(x)
    return largest


def _largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest value of each window, and its position 3 i + j in the window, int8."""
    height, width = x.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    margins = ((0, 0), (1, 2 * rows - height), (1, 2 * columns - width), (0, 0))
    padded = jnp.pad(x, margins, constant_values=-jnp.inf)

    def value_at(number: int) -> jax.Array:
        i, j = divmod(number, 3)
        stop = (x.shape[0], i + 2 * rows - 1, j + 2 * columns - 1, x.shape[3])
        # If the batch size is symbolic, as in an export, indexing would become a gather.
        return jax.lax.slice(padded, (0, i, j, 0), stop, (1, 2, 2, 1))

    largest = value_at(0)
    place = jnp.zeros(largest.shape, jnp.int8)
    for number in range(1, 9):
        value = value_at(number)
        place = jnp.where(value > largest, jnp.int8(number), place)
        largest = jnp.maximum(largest, value)
    return largest, place


def _forward(x):
    # Store the position now. Searching for the value in the backward pass could fail: XLA may
    # compute `x` a second time there, and round it differently.
    largest, place = _largest(x)
    return largest, (place, x[:0])


def _backward(residuals, dy):
    place, shape_of = residuals
    height, width = shape_of.shape[1:3]
    batch, rows, columns, channels = dy.shape

    # Row i of window a is row 2a + i - 1 of x: even rows are in one window, odd rows in two.
    def row(i):
        return [jnp.where(place == 3 * i + j, dy, jnp.zeros_like(dy)) for j in range(3)]

    even, odd = row(1), [last + _next(first, 1) for last, first in zip(row(2), row(0), strict=True)]
    pairs = [jnp.stack([r[1], r[2] + _next(r[0], 2)], axis=3) for r in (even, odd)]
    dx = jnp.stack(pairs, axis=2).reshape(batch, 2 * rows, 2 * columns, channels)
    return (dx[:, :height, :width],)


def _next(x: jax.Array, axis: int) -> jax.Array:
    """The values of the next window along an axis; zero after the last window."""
    margins = [(0, int(a == axis)) for a in range(x.ndim)]
    return jnp.pad(jax.lax.slice_in_dim(x, 1, None, axis=axis), margins)


stem_pool.defvjp(_forward, _backward)
