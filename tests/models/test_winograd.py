import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.resnet import Bottleneck
from reid_jax.models.winograd import (
    TRANSFORMED,
    by_tiles,
    conv3x3,
    directly,
    gradients_by_tiles,
    transformed,
    use_transformed,
)
from tests import reference

WIDE = (2, 32, 8, 256)  # a map for which Winograd's way is chosen


def arrays(rng, size, inputs, outputs):
    """A map, a kernel and a gradient of the result, float32."""
    x = rng.normal(size=(2, *size, inputs))
    kernel = rng.normal(size=(3, 3, inputs, outputs)) / np.sqrt(9 * inputs)
    dy = rng.normal(size=(2, *size, outputs))
    return [values.astype(np.float32) for values in (x, kernel, dy)]


def gradients_in_float64(x, kernel, dy):
    """By definition: a value and a weight meet in the result between them."""
    x, kernel, dy = (values.astype(np.float64) for values in (x, kernel, dy))
    dx = reference.conv2d(dy, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dkernel = np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        shifted = padded[:, i : i + height, j : j + width]
        dkernel[i, j] = np.einsum("bhwc,bhwd->cd", shifted, dy)
    return dx, dkernel


def assert_near(got, want, tolerance=2e-6):
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("size", [(4, 4), (6, 2), (5, 3), (1, 1), (2, 7)])
def test_equals_float64(rng, size):
    x, kernel, _ = arrays(rng, size, 5, 7)
    want = reference.conv2d(x.astype(np.float64), kernel.astype(np.float64))
    assert_near(by_tiles(x, kernel), want)


@pytest.mark.parametrize("size", [(4, 4), (6, 2), (5, 3), (1, 1), (2, 7)])
def test_gradients_equal_float64(rng, size):
    case = arrays(rng, size, 5, 7)
    for got, want in zip(gradients_by_tiles(*case), gradients_in_float64(*case), strict=True):
        assert_near(got, want)


def test_rounding_errors_are_at_most_three_times_those_of_the_direct_way(rng):
    x, kernel, dy = arrays(rng, (24, 8), 256, 256)
    exact = reference.conv2d(x.astype(np.float64), kernel.astype(np.float64))
    wants = (exact, *gradients_in_float64(x, kernel, dy))
    ours = (by_tiles(x, kernel), *gradients_by_tiles(x, kernel, dy))
    y, backward = jax.vjp(directly, x, kernel)
    for got, usual, want in zip(ours, (y, *backward(dy)), wants, strict=True):
        error, usual_error = (np.sqrt(np.mean(np.square(v - want))) for v in (got, usual))
        assert error < 3 * usual_error


def test_the_chosen_way_and_its_gradients_equal_float64(rng):
    x, kernel, dy = arrays(rng, (32, 8), 256, 256)
    y, backward = jax.vjp(conv3x3, x, kernel)
    assert_near(y, reference.conv2d(x.astype(np.float64), kernel.astype(np.float64)))
    for got, want in zip(backward(dy), gradients_in_float64(x, kernel, dy), strict=True):
        assert_near(got, want)


def test_a_gradient_of_a_gradient_equals_that_of_the_direct_way(rng):
    """As when a penalty is put on gradients."""
    x, kernel, dy = arrays(rng, (32, 8), 256, 256)

    def penalty(conv):
        def total(x):
            return jnp.sum(jnp.tanh(conv(x, kernel)) * dy)

        return jax.grad(lambda x: jnp.sum(jnp.square(jax.grad(total)(x))))

    assert_near(penalty(conv3x3)(x), penalty(directly)(x), 1e-5)


def operations(x, kernel, platform="cpu"):
    """How many convolutions and products of matrices there are, forward and backward."""

    def both(x, kernel, dy):
        y, backward = jax.vjp(conv3x3, x, kernel)
        return y, backward(dy)

    dy = jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), x.dtype)
    traced = jax.jit(both).trace(x, kernel, dy)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


@pytest.mark.parametrize(
    ("shape", "outputs", "dtype", "platform", "want"),
    [
        (WIDE, 256, jnp.float32, "cpu", (0, 48)),
        (WIDE, 256, jnp.float32, "cuda", (3, 0)),
        (WIDE, 256, jnp.bfloat16, "cpu", (3, 0)),
        # Narrow on one side, or on both.
        (WIDE, 16, jnp.float32, "cpu", (3, 0)),
        ((64, 64, 32, 16), 256, jnp.float32, "cpu", (3, 0)),
        # Too small to matter.
        ((1, 16, 8, 256), 256, jnp.float32, "cpu", (3, 0)),
    ],
)
def test_it_is_chosen_where_it_is_faster(shape, outputs, dtype, platform, want):
    x = jax.ShapeDtypeStruct(shape, dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, shape[3], outputs), dtype)
    assert operations(x, kernel, platform) == want


def test_a_symbolic_batch_leaves_the_choice_to_the_runtime():
    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, *WIDE[1:]), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 256, 256), jnp.float32)
    exported = jax.export.export(jax.jit(conv3x3), platforms=("cpu", "cuda"))(x, kernel)
    text = exported.mlir_module()
    assert "stablehlo.convolution" in text
    assert "stablehlo.dot_general" not in text


def test_blocks_of_the_trunk_use_it():
    block = Bottleneck(256, dtype=jnp.float32)
    x = jax.ShapeDtypeStruct((2, 32, 8, 1024), jnp.float32)
    variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, True), x)
    apply = nn.apply(Bottleneck.__call__, block)
    text = jax.jit(lambda v, x: apply(v, x, False)).lower(variables, x).as_text()
    assert "stablehlo.convolution" not in text


def test_the_backward_pass_does_not_keep_transformed_maps():
    """They are four times as large as maps, and would be kept for every layer."""
    layers = 6
    x = jax.ShapeDtypeStruct((1, 128, 64, 64), jnp.float32)
    kernels = [jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)] * layers

    def total(x, kernels):
        for kernel in kernels:
            x = jnp.sin(conv3x3(x, kernel))
        return x.sum()

    program = jax.jit(jax.grad(total, argnums=(0, 1))).lower(x, kernels).compile()
    planned = program.memory_analysis().temp_size_in_bytes / (4 * x.size)
    # Each layer keeps one map, or its sine's gradient another, and one layer at work takes 12. With
    # tiles it would be four maps more for each layer.
    assert planned < 2 * layers + 12


def block_with_transformed(stride):
    """A wide block that only describes, its weights, those with transformed kernels, and a map."""
    block = Bottleneck(64, stride=stride, inner=256, dtype=jnp.float32)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 32, 8, 256)).astype(np.float32)
    shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, True), x)
    variables = reference.random_variables(dict(shapes), rng)
    kept = variables | {TRANSFORMED: transformed(variables["params"])}

    def describe(variables, x):
        with nn.intercept_methods(use_transformed):
            return nn.apply(Bottleneck.__call__, block)(variables, x, False)

    return jax.jit(describe), variables, kept, x


@pytest.mark.parametrize("stride", [1, 2])
def test_kernels_transformed_before_give_the_same(stride):
    describe, variables, kept, x = block_with_transformed(stride)
    assert list(kept[TRANSFORMED]) == ["conv2"]
    assert_near(describe(kept, x), describe(variables, x))


def test_kernels_transformed_before_are_not_transformed_again():
    describe, _, kept, x = block_with_transformed(1)
    text = describe.lower(kept, x).as_text()
    assert "tensor<3x3x" not in text  # An argument that nothing reads is left out.
    assert text.count("stablehlo.dot_general") == 16 + 2


def test_kernels_transformed_before_are_used_for_smaller_maps():
    describe, variables, kept, x = block_with_transformed(1)
    small = x[:1, :16]
    assert "stablehlo.convolution" in describe.lower(variables, small).as_text()
    assert "stablehlo.convolution" not in describe.lower(kept, small).as_text()
    assert_near(describe(kept, small), describe(variables, small))
    # Too small to matter.
    assert "stablehlo.convolution" in describe.lower(kept, small[:, :8]).as_text()


def test_only_wide_3x3_kernels_are_transformed(rng):
    kernels = {
        f"{c}, {d}": {"kernel": rng.normal(size=(3, 3, c, d))} for c in (16, 32) for d in (16, 32)
    }
    matrices = {f"matrix of {n}": {"kernel": rng.normal(size=(n, n))} for n in (3, 64)}
    biases = {"bias": {"bias": rng.normal(size=64)}}
    assert list(transformed(kernels | matrices | biases)) == ["32, 32"]
