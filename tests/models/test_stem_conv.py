import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.resnet import ResNet
from reid_jax.models.stem_conv import by_blocks, by_product, conv7x7, directly
from tests import reference

SIZES = [(8, 4), (6, 10), (7, 4), (4, 5), (9, 7), (1, 1), (2, 1)]


def arrays(rng, size, inputs, outputs):
    """A map, a kernel and a gradient of the result, float32."""
    x = rng.normal(size=(2, *size, inputs))
    kernel = rng.normal(size=(7, 7, inputs, outputs)) / np.sqrt(49 * inputs)
    dy = rng.normal(size=(2, *(-(-extent // 2) for extent in size), outputs))
    return [values.astype(np.float32) for values in (x, kernel, dy)]


def in_float64(x, kernel):
    return reference.conv2d(x.astype(np.float64), kernel.astype(np.float64), stride=2)


def assert_near(got, want, tolerance=2e-6):
    assert got.dtype == np.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("outputs", [4, 5])
@pytest.mark.parametrize("size", SIZES)
def test_equals_float64(rng, size, outputs):
    x, kernel, _ = arrays(rng, size, 3, outputs)
    want = in_float64(x, kernel)
    assert_near(by_product(x, kernel), want)
    assert_near(by_blocks(x, kernel), want)
    assert_near(conv7x7(x, kernel), want)
    assert_near(directly(x, kernel), want)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_float64(rng, size):
    """By definition: a value and a weight meet in the result between them."""
    x, kernel, dy = arrays(rng, size, 3, 5)
    padded = np.pad(x.astype(np.float64), ((0, 0), (3, 4), (3, 4), (0, 0)))
    dpadded, dkernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    height, width = dy.shape[1:3]
    for i, j in np.ndindex(7, 7):
        window = np.s_[:, i : i + 2 * height : 2, j : j + 2 * width : 2]
        dkernel[i, j] = np.einsum("bhwc,bhwd->cd", padded[window], dy)
        dpadded[window] += np.einsum("bhwd,cd->bhwc", dy, kernel[i, j])
    dx = dpadded[:, 3 : 3 + size[0], 3 : 3 + size[1]]
    for way in (conv7x7, by_blocks):
        for got, want in zip(jax.vjp(way, x, kernel)[1](dy), (dx, dkernel), strict=True):
            assert_near(got, want)


@pytest.mark.parametrize("outputs", [4, 16])
def test_rounding_errors_are_those_of_the_direct_way(rng, outputs):
    x, kernel, _ = arrays(rng, (96, 64), 3, outputs)
    want = in_float64(x, kernel)
    error, usual = (
        np.sqrt(np.mean(np.square(way(x, kernel) - want))) for way in (by_product, directly)
    )
    assert error < 1.5 * usual


@pytest.mark.parametrize(
    ("outputs", "dtype", "platform", "want"),
    [
        (32, jnp.float32, "cpu", (1, 1)),  # a product forward, a convolution backward
        (33, jnp.float32, "cpu", (2, 0)),
        (32, jnp.float32, "cuda", (2, 0)),
        (64, jnp.bfloat16, "cuda", (2, 0)),
        (32, jnp.bfloat16, "cpu", (2, 0)),
    ],
)
def test_it_is_chosen_where_it_is_faster(outputs, dtype, platform, want):
    def both(x, kernel, dy):
        y, backward = jax.vjp(lambda kernel: conv7x7(x, kernel), kernel)
        return y, backward(dy)

    shapes = [(2, 24, 8, 3), (7, 7, 3, outputs), (2, 12, 4, outputs)]
    traced = jax.jit(both).trace(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert (text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")) == want
    # Locations of 2x2 pixels, with four more channels in bfloat16.
    channels = 12 if dtype == jnp.float32 else 16
    assert (f"tensor<4x4x{channels}x{outputs}x" in text) == (platform == "cuda")


def test_a_symbolic_batch_leaves_the_choice_to_the_runtime():
    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, 24, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((7, 7, 3, 4), jnp.float32)
    exported = jax.export.export(jax.jit(conv7x7), platforms=("cpu", "cuda"))(x, kernel)
    text = exported.mlir_module()
    assert "stablehlo.convolution" in text
    assert "stablehlo.dot_general" not in text


def test_the_trunk_uses_it():
    trunk = ResNet(depths=(1, 1, 1, 1), width=4, dtype=jnp.float32)
    images = jax.ShapeDtypeStruct((2, 24, 8, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: trunk.init(jax.random.key(0), x, True), images)
    program = jax.jit(lambda v, x: trunk.apply(v, x, False))
    assert (
        "tensor<7x7x3x4xf32>) -> tensor<2x12x4x4xf32>"
        not in program.lower(variables, images).as_text()
    )
