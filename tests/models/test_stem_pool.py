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


def test_the_gradient_is_the_same_compiled_together_with_what_makes_the_map(rng):
    """XLA recomputes a cheap map at every use, and may round it differently there."""
    images = jnp.array(rng.normal(size=(8, 48, 32, 3)), jnp.float32)
    kernel = jnp.array(rng.normal(size=(3, 3, 3, 8)), jnp.float32)
    dy = jnp.array(rng.normal(size=(8, 24, 16, 8)), jnp.float32)

    def total(kernel, shift):
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = (x - x.mean(axis=(0, 1, 2), keepdims=True)) * jnp.float32(1.7) + shift
        return (stem_pool(nn.relu(x)) * dy).sum()

    gradient = jax.grad(total, argnums=(0, 1))
    shift = jnp.full((1, 1, 1, 8), 0.3)
    for got, want in zip(jax.jit(gradient)(kernel, shift), gradient(kernel, shift), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_not_a_number_stays():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 2, 2, 0].set(jnp.nan)
    assert jnp.isnan(stem_pool(x)).tolist() == [[[[False], [False]], [[False], [True]]]]
