import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.stem_pool import stem_pool
from tests import reference


def gradient_by_loops(x, dy):
    """Each window's cotangent goes to the first of its largest values."""
    dx = np.zeros(x.shape)
    for b, row, column, c in np.ndindex(dy.shape):
        best = None
        for i in range(max(0, 2 * row - 1), min(x.shape[1], 2 * row + 2)):
            for j in range(max(0, 2 * column - 1), min(x.shape[2], 2 * column + 2)):
                if best is None or x[b, i, j, c] > x[b, *best, c]:
                    best = i, j
        dx[b, *best, c] += dy[b, row, column, c]
    return dx


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (5, 8), (1, 1), (2, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_loops(rng, size, ties):
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    x = np.maximum(np.round(x) if ties else x, -1)  # all-negative windows too
    y, backward = jax.vjp(stem_pool, jnp.array(x))
    np.testing.assert_array_equal(y, reference.max_pool_3x3_stride_2(x))
    # Integers add up exactly in any order.
    dy = rng.integers(-9, 10, y.shape).astype(np.float32)
    (dx,) = backward(jnp.array(dy))
    np.testing.assert_array_equal(dx, gradient_by_loops(x, dy))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_equals_xlas_select_and_scatter(rng, dtype):
    x = jnp.round(jnp.array(rng.normal(size=(2, 12, 10, 4))), 1).astype(dtype)
    theirs, their_backward = jax.vjp(
        lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))), x
    )
    ours, our_backward = jax.vjp(stem_pool, x)
    np.testing.assert_array_equal(ours, theirs)
    dy = jnp.array(rng.integers(-4, 5, ours.shape)).astype(dtype)
    (got,), (want,) = our_backward(dy), their_backward(dy)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)
