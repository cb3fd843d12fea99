import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.residual import relu_once


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 4), (3, 1, 1, 2), (1, 7, 3, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradient_are_those_of_relu(rng, shape, dtype):
    x, dy = (jnp.asarray(rng.integers(-3, 4, shape), dtype) for _ in range(2))  # zeros among them
    got, pullback = jax.vjp(relu_once, x)
    want, usual = jax.vjp(jax.nn.relu, x)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(pullback(dy)[0], usual(dy)[0])


def test_not_a_number_is_seen():
    assert np.isnan(relu_once(jnp.full((2, 1, 1, 1), jnp.nan))).all()


def blocks(activation, kernels, x):
    for kernel in kernels:
        rows = x.reshape(-1, x.shape[-1])
        x = activation(x + (rows @ kernel).reshape(x.shape))
    return x.sum()


def maxima(activation, rng):
    """Maxima in the compiled gradient of eight blocks."""
    kernels = jnp.asarray(rng.normal(size=(8, 64, 64)) / 64, jnp.float32)
    x = jnp.asarray(rng.normal(size=(4, 16, 8, 64)), jnp.float32)
    gradient = jax.jit(jax.grad(blocks, argnums=1), static_argnums=0)
    return gradient.lower(activation, kernels, x).compile().as_text().count(" maximum(")


def test_each_block_is_computed_once(rng):
    assert maxima(relu_once, rng) <= 2 * 8  # one for each half
    # XLA repeats the usual activation: the reason for `relu_once`.
    assert maxima(jax.nn.relu, rng) > 4 * 8


@pytest.mark.parametrize(("platform", "halves"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
def test_only_cpus_compute_in_halves(platform, halves):
    x = jax.ShapeDtypeStruct((2, 4, 4, 8), jnp.float32)
    module = jax.export.export(jax.jit(relu_once), platforms=[platform])(x).mlir_module()
    assert module.count("stablehlo.concatenate") == halves


def test_any_batch_size_can_be_exported():
    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, 4, 4, 8), jnp.float32)
    exported = jax.export.export(jax.jit(relu_once))(x)
    values = np.linspace(-1, 1, 3 * 128, dtype=np.float32).reshape(3, 4, 4, 8)
    np.testing.assert_array_equal(exported.call(values), np.maximum(values, 0))
