import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.convolutions import kaiming_fan_out, pointwise, product_of_rows

WIDTHS = [(3, 7), (7, 3), (5, 5)]


def gradients(rows, kernel, dy):
    return jax.vjp(product_of_rows, rows, kernel)[1](dy)


def arrays(rng, inputs, outputs, dtype=np.float32):
    shapes = (40, inputs), (inputs, outputs), (40, outputs)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("widths", WIDTHS)
def test_gradients_equal_float64(rng, widths):
    rows, kernel, dy = arrays(rng, *widths)
    exact_rows, exact_kernel, exact_dy = (np.float64(x) for x in (rows, kernel, dy))
    drows, dkernel = jax.jit(gradients)(rows, kernel, dy)
    np.testing.assert_allclose(product_of_rows(rows, kernel), exact_rows @ exact_kernel, atol=1e-5)
    np.testing.assert_allclose(drows, exact_dy @ exact_kernel.T, atol=1e-5)
    np.testing.assert_allclose(dkernel, exact_rows.T @ exact_dy, atol=1e-5)


def test_gradients_have_the_dtype_of_their_values(rng):
    case = arrays(rng, 7, 3, jnp.bfloat16)
    for got, value in zip(gradients(*case), case, strict=False):
        assert got.dtype == jnp.bfloat16
        assert got.shape == value.shape


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_narrow_matrix_is_first_on_cpus(rng, widths):
    # The result of the only product has the width of the first matrix, then that of the second.
    compiled = jax.jit(lambda *case: gradients(*case)[1]).lower(*arrays(rng, *widths)).compile()
    shapes = re.findall(r"= f32\[(\d+),(\d+)\]\S* dot\(", compiled.as_text())
    assert shapes == [(str(min(widths)), str(max(widths)))]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_get_the_usual_gradient(rng, platform):
    case = arrays(rng, 7, 3)
    exported = jax.export.export(jax.jit(gradients), platforms=[platform])(*case)
    assert "optimization_barrier" not in exported.mlir_module()
    exported = jax.export.export(jax.jit(gradients), platforms=["cpu"])(*case)
    assert "optimization_barrier" in exported.mlir_module()


def test_pointwise_is_a_1x1_convolution(rng):
    layer = pointwise(4, dtype=jnp.float32, name=None)
    maps = jnp.asarray(rng.normal(size=(2, 5, 3, 6)), jnp.float32)
    variables = layer.init(jax.random.key(0), maps)
    kernel = variables["params"]["kernel"]
    want = np.einsum("bhwc,cd->bhwd", np.float64(maps), np.float64(kernel))
    np.testing.assert_allclose(layer.apply(variables, maps), want, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 7, 3, 4), (3, 3, 6, 8), (12, 20)])
def test_kernels_start_as_flax_would_start_them(shape):
    usual = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    got, want = (
        jax.jit(initializer, static_argnums=(1, 2))(jax.random.key(3), shape, jnp.float32)
        for initializer in (kaiming_fan_out, usual)
    )
    # On JAX 0.12 XLA rounds the two differently.
    np.testing.assert_array_max_ulp(got, want, maxulp=2, dtype=np.float32)
    assert got.shape == shape
    assert got.dtype == want.dtype
